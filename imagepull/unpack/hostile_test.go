// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/sys/unix"
)

// TestHostile has one archive for each attack. Every one must end in the named error, with nothing changed outside.
func TestHostile(t *testing.T) {
	new := func() *archive { return &archive{} }
	size := func(field string) func([]byte) {
		return func(b []byte) { copy(b[124:136], field) }
	}
	gnu := "ustar  \x00"
	long := strings.Repeat("n", 300)
	sparse := func(realSize int64, pairs ...int64) func([]byte) {
		return func(b []byte) {
			clear(b[345:])
			for i, n := range pairs {
				octal(b[386+12*i:398+12*i], n)
			}
			octal(b[483:495], realSize)
		}
	}
	tests := []struct {
		name string
		in   *archive
		lim  Limits
		want error
		text string
	}{
		// Paths.
		{"name climbs out", new().file("../escape", "x").end(), Limits{}, ErrEscape, "'..'"},
		{"name climbs out in the middle", new().file("a/../../escape", "x").end(), Limits{}, ErrEscape, "'..'"},
		{"directory climbs out", new().dir("a/..").end(), Limits{}, ErrEscape, "'..'"},
		{"pax path climbs out", new().pax(record("path", "../escape")).file("fine", "x").end(), Limits{}, ErrEscape, "'..'"},
		{"GNU long name climbs out", new().block(block{kind: typeGNUName, name: "././@LongLink", size: 10, magic: gnu}).
			body("../escape\x00").file("fine", "x").end(), Limits{}, ErrEscape, "'..'"},
		{"link's own name climbs out (CVE-2025-5981)", new().symlink("../link", "fine").end(), Limits{}, ErrEscape, "'..'"},
		{"hard link's own name climbs out", new().file("a", "x").hardLink("../link", "a").end(), Limits{}, ErrEscape, "'..'"},
		{"hard link target climbs out", new().hardLink("a", "../outside/canary").end(), Limits{}, ErrEscape, "'..'"},
		{"hard link to an absolute path", new().hardLink("a", "/etc/passwd").end(), Limits{}, ErrFormat, "does not exist"},
		{"hard link through a symbolic link out", new().symlink("l", "../outside").hardLink("a", "l/canary").end(),
			Limits{}, ErrFormat, "does not exist"},
		{"hard link through an absolute symbolic link", new().symlink("l", "/etc").hardLink("a", "l/passwd").end(),
			Limits{}, ErrFormat, "does not exist"},
		{"hard link to a directory", new().dir("d").hardLink("a", "d").end(), Limits{}, ErrFormat, "no file"},
		{"hard link to the root", new().hardLink("a", "/").end(), Limits{}, ErrFormat, "hard link"},
		{"hard link to itself", new().file("a", "x").hardLink("a", "a").end(), Limits{}, ErrFormat, "hard link"},
		{"hard link to nothing", new().hardLink("a", "").end(), Limits{}, ErrFormat, "hard link"},
		{"hard link whose own directory's removal takes its target", new().file("d/x", "x").hardLink("d", "d/x").end(),
			Limits{}, ErrFormat, "does not exist"},
		{"hard link to a whited out name", new().file(".wh.g", "").hardLink("a", "g").end(), Limits{}, ErrFormat, "no file"},
		{"symbolic link loop", new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end(), Limits{}, ErrLimit, "40 symbolic links"},
		{"symbolic link to itself", new().symlink("a", "a/a").file("a/x", "x").end(), Limits{}, ErrLimit, "40 symbolic links"},
		{"symbolic link bomb", bomb(), Limits{}, ErrLimit, "symbolic links"},
		{"symbolic link to nothing", new().symlink("a", "").end(), Limits{}, ErrFormat, "symbolic link"},
		{"file as a directory", new().file("a", "x").file("a/b", "x").end(), Limits{}, ErrFormat, "not a directory"},
		{"root as a file", new().file("./", "").end(), Limits{}, ErrFormat, "directory's name"},
		{"root as a symbolic link", new().symlink(".", "/etc").end(), Limits{}, ErrFormat, "the root"},
		{"root as a hard link", new().hardLink("/", "/etc/passwd").end(), Limits{}, ErrFormat, "the root"},
		{"empty name", new().file("", "x").end(), Limits{}, ErrFormat, "empty name"},
		{"NUL in a pax path", new().pax(record("path", "a\x00b")).file("a", "x").end(), Limits{}, ErrFormat, "NUL"},
		{"NUL in a pax linkpath", new().pax(record("linkpath", "a\x00b")).symlink("a", "x").end(), Limits{}, ErrFormat, "NUL"},
		{"NUL in a GNU long name", new().block(block{kind: typeGNUName, size: 4}).body("a\x00b\x00").file("a", "x").end(),
			Limits{}, ErrFormat, "NUL"},
		{"component longer than a file name", new().pax(record("path", long)).file("a", "x").end(), Limits{}, ErrLimit, "component"},
		{"path longer than a path", new().pax(record("path", strings.Repeat("dir/", 1200)+"x")).file("a", "x").end(),
			Limits{}, ErrLimit, "path of"},
		{"path deeper than the limit", new().pax(record("path", strings.Repeat("d/", 300)+"x")).file("a", "x").end(),
			Limits{}, ErrLimit, "components"},
		{"path deeper than the limit through links", new().file("a/a/a/f", "x").symlink("l", "a/a/a").file("l/b/b/f", "x").end(),
			Limits{Depth: 4}, ErrLimit, "deep"},

		// Whiteouts and overlayfs.
		{"whiteout of nothing", new().file("d/.wh.", "").end(), Limits{}, ErrEscape, "whiteout"},
		{"whiteout of its directory", new().file("d/.wh..", "").end(), Limits{}, ErrEscape, "whiteout"},
		{"whiteout of the parent directory", new().file("d/.wh...", "").end(), Limits{}, ErrEscape, "whiteout"},
		{"entry beneath a whiteout", new().file(".wh.d/x", "x").end(), Limits{}, ErrFormat, "whiteout"},
		{"path through a whiteout's name by a link", new().symlink("l", ".wh.d").file("l/x", "x").end(), Limits{}, ErrFormat, ".wh.d"},
		{"device that overlayfs takes for a whiteout", new().block(block{kind: typeChar, name: "dev"}).end(),
			Limits{}, ErrFormat, "0:0"},

		// Headers.
		{"no archive", new(), Limits{}, ErrTruncated, "end-of-archive"},
		{"wrong checksum", new().block(block{kind: typeFile, name: "a", badSum: true}).end(), Limits{}, ErrFormat, "checksum"},
		{"no checksum where signed bytes sum to 0", (&archive{*bytes.NewBuffer(append([]byte("\x80\x80"), make([]byte, 1534)...))}),
			Limits{}, ErrFormat, "checksum"},
		{"unknown magic", new().block(block{kind: typeFile, name: "a", magic: "zstar\x0000"}).end(), Limits{}, ErrFormat, "magic"},
		{"star's other prefix", new().block(block{kind: typeFile, name: "a", patch: func(b []byte) { copy(b[508:], "tar\x00") }}).end(),
			Limits{}, ErrFormat, "star"},
		{"unknown type", new().block(block{kind: 'M', name: "a"}).end(), Limits{}, ErrFormat, "type 'M'"},
		{"size with a sign", new().block(block{kind: typeFile, name: "a", patch: size("-0000000001\x00")}).end(), Limits{}, ErrFormat, "size"},
		{"size with text behind it", new().block(block{kind: typeFile, name: "a", patch: size("000000\x0012345")}).end(),
			Limits{}, ErrFormat, "size"},
		{"negative base-256 size", new().block(block{kind: typeFile, name: "a",
			patch: size("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe\x00")}).end(), Limits{}, ErrFormat, "negative"},
		{"base-256 size over 63 bits", new().block(block{kind: typeFile, name: "a",
			patch: size("\x80\x00\x00\x00\x80\x00\x00\x00\x00\x00\x00\x00")}).end(), Limits{}, ErrFormat, "64 bits"},
		{"size over the limit", new().block(block{kind: typeFile, name: "a",
			patch: size("\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff")}).end(), Limits{}, ErrLimit, "file of"},
		{"owner that means keep", new().block(block{kind: typeFile, name: "a",
			patch: func(b []byte) { copy(b[108:116], "\x80\x00\x00\x00\xff\xff\xff\xff") }}).end(), Limits{}, ErrFormat, "uid"},
		{"negative owner", new().block(block{kind: typeFile, name: "a",
			patch: func(b []byte) { copy(b[116:124], "\xff\xff\xff\xff\xff\xff\xff\xff") }}).end(), Limits{}, ErrFormat, "gid"},
		{"owner out of range in pax", new().pax(record("uid", "4294967295")).file("a", "x").end(), Limits{}, ErrFormat, "uid"},
		{"device number out of range", new().block(block{kind: typeBlock, name: "a",
			patch: func(b []byte) { octal(b[329:337], 1<<12) }}).end(), Limits{}, ErrFormat, "device"},
		{"symbolic link with content", new().block(block{kind: typeSymlink, name: "a", link: "b", size: 512}).
			file("smuggled", "").end(), Limits{}, ErrFormat, "content"},
		{"hard link with content", new().file("b", "").block(block{kind: typeHardLink, name: "a", link: "b", size: 512}).
			file("smuggled", "").end(), Limits{}, ErrFormat, "content"},
		{"directory with content", new().block(block{kind: typeDir, name: "a", size: 512}).file("smuggled", "").end(),
			Limits{}, ErrFormat, "content"},
		{"old directory with content", new().block(block{kind: typeOldFile, name: "a/", size: 512}).file("smuggled", "").end(),
			Limits{}, ErrFormat, "content"},
		{"file with a directory's name", new().file("a/", "").end(), Limits{}, ErrFormat, "directory's name"},

		// Pax and GNU extensions.
		{"pax size hides a member (CVE-2025-62518)", new().pax(record("size", "1024")).
			block(block{kind: typeFile, name: "outer.tar"}).file("smuggled", "x").end(), Limits{}, ErrFormat, "size is 1024"},
		{"pax size shows a member (CVE-2025-62518)", new().pax(record("size", "0")).
			block(block{kind: typeFile, name: "outer.tar", size: 1024}).file("smuggled", "x").end(), Limits{}, ErrFormat, "size is 0"},
		{"pax size on a link", new().pax(record("size", "512")).symlink("a", "b").end(), Limits{}, ErrFormat, "size is 512"},
		{"pax path twice", new().pax(record("path", "a"), record("path", "b")).file("c", "").end(), Limits{}, ErrFormat, "repeated"},
		{"pax attribute twice", new().pax(record("SCHILY.xattr.user.a", "1"), record("SCHILY.xattr.user.a", "2")).file("c", "").end(),
			Limits{}, ErrFormat, "repeated"},
		{"two pax headers", new().pax(record("path", "a")).pax(record("path", "b")).file("c", "").end(), Limits{}, ErrFormat, "follows"},
		{"pax path beside a GNU long name", new().pax(record("path", "a")).block(block{kind: typeGNUName, size: 2}).body("b\x00").
			file("c", "").end(), Limits{}, ErrFormat, "both"},
		{"pax linkpath beside a GNU long link", new().pax(record("linkpath", "a")).block(block{kind: typeGNULink, size: 2}).body("b\x00").
			symlink("c", "").end(), Limits{}, ErrFormat, "both"},
		{"two GNU long names", new().block(block{kind: typeGNUName, size: 2}).body("b\x00").block(block{kind: typeGNUName, size: 2}).
			body("c\x00").file("d", "").end(), Limits{}, ErrFormat, "follows"},
		{"pax header without an entry", new().pax(record("path", "a")).end(), Limits{}, ErrFormat, "without an entry"},
		{"pax header before a global one", new().pax(record("path", "a")).block(block{kind: typePaxGlobal}).file("a", "").end(),
			Limits{}, ErrFormat, "follows"},
		{"empty pax path", new().pax(record("path", "")).file("a", "").end(), Limits{}, ErrFormat, "empty"},
		{"pax record longer than the header", new().pax("99 path=a\n").file("a", "").end(), Limits{}, ErrFormat, "length 99"},
		{"pax record shorter than its key", new().pax("3 path=a\n").file("a", "").end(), Limits{}, ErrFormat, "length 3"},
		{"pax record with a signed length", new().pax("+9 path=a\n").file("a", "").end(), Limits{}, ErrFormat, "length"},
		{"pax record without a value", new().pax("7 path\n").file("a", "").end(), Limits{}, ErrFormat, "key"},
		{"pax record without an end", new().pax("9 path=ab").file("a", "").end(), Limits{}, ErrFormat, "length 9"},
		{"pax size with a sign", new().pax(record("size", "+0")).file("a", "").end(), Limits{}, ErrFormat, "number"},
		{"pax size over 63 bits", new().pax(record("size", "9223372036854775808")).file("a", "").end(), Limits{}, ErrFormat, "number"},
		{"pax time that is none", new().pax(record("mtime", "1.5.2")).file("a", "").end(), Limits{}, ErrFormat, "time"},
		{"global pax path", new().block(block{kind: typePaxGlobal, size: 10}).body(record("path", "a")).file("b", "").end(),
			Limits{}, ErrFormat, "global"},
		{"global pax size", new().block(block{kind: typePaxGlobal, size: int64(len(record("size", "512")))}).body(record("size", "512")).
			file("b", "").end(), Limits{}, ErrFormat, "global"},
		{"attribute without a name", new().pax(record("SCHILY.xattr.", "a")).file("b", "").end(), Limits{}, ErrFormat, "attribute"},
		{"attribute larger than the kernel's", new().pax(record("SCHILY.xattr.user.a", strings.Repeat("x", 65537))).file("b", "").end(),
			Limits{}, ErrLimit, "65537"},

		// Numbers of things.
		{"10 000 pax records", new().pax(strings.Repeat(record("comment", "x"), 10000)).file("a", "").end(), Limits{}, ErrLimit, "pax records"},
		{"10 000 attributes", new().pax(many(10000, func(i int) string { return record(fmt.Sprintf("SCHILY.xattr.user.a%d", i), "") })).
			file("a", "").end(), Limits{}, ErrLimit, "256 attributes"},
		{"10 000 pax headers in a row", repeat(10000, func(a *archive) { a.pax(record("comment", "x")) }), Limits{}, ErrFormat, "follows"},
		{"10 000 global pax headers", repeat(10000, func(a *archive) { a.block(block{kind: typePaxGlobal}) }), Limits{Entries: 5000}, ErrLimit, "headers"},
		{"pax header of a gigabyte", new().block(block{kind: typePax, size: 1 << 30}), Limits{}, ErrLimit, "extension header"},
		{"too many entries", repeat(11, func(a *archive) { a.file("a", "") }), Limits{Entries: 10}, ErrLimit, "headers"},
		{"too many directories to remember", repeat(100, nil), Limits{MemoryBytes: 20000}, ErrLimit, "memory"},
		{"too much stream", new().file("a", strings.Repeat("x", 4096)).end(), Limits{StreamBytes: 4096}, ErrLimit, "stream"},
		{"too large a file", new().file("a", strings.Repeat("x", 4096)).end(), Limits{FileBytes: 4095}, ErrLimit, "4096"},
		{"zeros without end behind the archive", (&archive{*bytes.NewBuffer(make([]byte, 1<<20))}), Limits{StreamBytes: 1 << 19}, ErrLimit, "stream"},

		// Sparse files.
		{"sparse entry of another dialect", new().block(block{kind: typeGNUSparse, name: "a"}).end(), Limits{}, ErrFormat, "magic"},
		{"sparse segment outside of the file", new().block(block{kind: typeGNUSparse, name: "a", magic: gnu, size: 4,
			patch: sparse(4, 1, 4)}).body("data").end(), Limits{}, ErrFormat, "segment"},
		{"sparse segments that overlap", new().block(block{kind: typeGNUSparse, name: "a", magic: gnu, size: 4,
			patch: sparse(9, 0, 2, 1, 2)}).body("data").end(), Limits{}, ErrFormat, "segment"},
		{"sparse segments with more than the content", new().block(block{kind: typeGNUSparse, name: "a", magic: gnu, size: 4,
			patch: sparse(4096, 0, 1024)}).body("data").file("smuggled", "x").end(), Limits{}, ErrFormat, "1024 bytes"},
		{"sparse segments with less than the content", new().block(block{kind: typeGNUSparse, name: "a", magic: gnu, size: 1024,
			patch: sparse(4096, 0, 4)}).file("smuggled", "x").end(), Limits{}, ErrFormat, "4 bytes"},
		{"sparse file of 8 EiB", new().block(block{kind: typeGNUSparse, name: "a", magic: gnu,
			patch: func(b []byte) { clear(b[345:]); copy(b[483:495], "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff") }}).end(),
			Limits{}, ErrLimit, "file of"},
		{"sparse map that never ends", sparseForever(), Limits{}, ErrLimit, "segments"},
		{"sparse forms mixed", new().pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.size", "4"),
			record("GNU.sparse.map", "0,4"), record("GNU.sparse.numblocks", "1")).file("a", "data").end(), Limits{}, ErrFormat, "contradictory"},
		{"sparse form of the future", new().pax(record("GNU.sparse.major", "2"), record("GNU.sparse.minor", "0")).file("a", "data").end(),
			Limits{}, ErrFormat, "2.0"},
		{"sparse map longer than said", new().pax(record("GNU.sparse.size", "4"), record("GNU.sparse.map", "0,2,2,2"),
			record("GNU.sparse.numblocks", "1")).file("a", "data").end(), Limits{}, ErrFormat, "want 1"},
		{"sparse map of odd length", new().pax(record("GNU.sparse.size", "4"), record("GNU.sparse.map", "0,2,2"),
			record("GNU.sparse.numblocks", "2")).file("a", "data").end(), Limits{}, ErrFormat, "number"},
		{"sparse length without an offset", new().pax(record("GNU.sparse.numbytes", "4")).file("a", "data").end(), Limits{}, ErrFormat, "offset"},
		{"sparse map outside of its entry", new().pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"),
			record("GNU.sparse.realsize", "4")).file("a", "9\n0\n").end(), Limits{}, ErrFormat, "does not fit"},
		{"sparse map with a huge count", new().pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"),
			record("GNU.sparse.realsize", "4")).file("a", "999999999999\n"+strings.Repeat("0\n", 250)).end(), Limits{}, ErrLimit, "segments"},
		{"sparse directory", new().pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"),
			record("GNU.sparse.realsize", "4")).dir("a").end(), Limits{}, ErrFormat, "sparse records"},

		// Ends.
		{"cut in a header", cut(new().file("a", "x"), 100), Limits{}, ErrTruncated, "100 of 512"},
		{"cut in the content", cut(new().file("a", strings.Repeat("x", 3000)), 600), Limits{}, ErrTruncated, "before the end"},
		{"cut in the filler", cut(new().file("a", "x"), 600), Limits{}, ErrTruncated, "before the end"},
		{"cut in a pax header", cut(new().pax(record("comment", "x")), 520), Limits{}, ErrTruncated, "before the end"},
		{"no end-of-archive marker", new().file("a", "x"), Limits{}, ErrTruncated, "end-of-archive"},
		{"entry behind the end", new().file("a", "x").end().file("b", "x").end(), Limits{}, ErrTrailing, ""},
		{"one byte behind the end", &archive{*bytes.NewBuffer(append(new().file("a", "x").end().Bytes(), 1))}, Limits{}, ErrTrailing, ""},
		{"bytes behind a lone zero block", &archive{*bytes.NewBuffer(append(new().file("a", "x").Bytes(),
			append(make([]byte, 512), 'x')...))}, Limits{}, ErrTrailing, "offset"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, err := unpack(t, bytes.NewReader(tt.in.Bytes()), tt.lim)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Fatalf("got error %v, want %v with %q", err, tt.want, tt.text)
			}
			filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if strings.Contains(path, "smuggled") {
					t.Errorf("made %s", path)
				}
				return err
			})
		})
	}
}

func cut(a *archive, n int) *archive {
	a.Truncate(n)
	return a
}

func many(n int, f func(i int) string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(f(i))
	}
	return b.String()
}

// repeat calls f n times and ends the archive; without f it makes n directories.
func repeat(n int, f func(*archive)) *archive {
	a := &archive{}
	for i := range n {
		if f != nil {
			f(a)
		} else {
			a.dir(fmt.Sprintf("dir%d", i))
		}
	}
	return a.end()
}

// bomb has links that each stand for two of the one before.
func bomb() *archive {
	a := (&archive{}).dir("l0")
	for i := 1; i < 40; i++ {
		a.symlink(fmt.Sprintf("l%d", i), fmt.Sprintf("l%d/../l%d", i-1, i-1))
	}
	return a.file("l39/x", "x").end()
}

// sparseForever has an old GNU map of ever more extension blocks.
func sparseForever() *archive {
	a := (&archive{}).block(block{kind: typeGNUSparse, name: "a", magic: "ustar  \x00", patch: func(b []byte) {
		clear(b[345:])
		b[482] = 1
		octal(b[483:495], 1)
	}})
	extension := make([]byte, 512)
	for i := range 21 {
		copy(extension[24*i:], "00000000001\x0000000000000\x00")
	}
	extension[504] = 1
	for range maxSegments/21 + 10 {
		a.Write(extension)
	}
	return a.end()
}

// TestConfined has archives that are legitimate in form and must stay inside: what they point at is taken with the
// layer's root as "/".
func TestConfined(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name string
		in   *archive
		want string // a file that must then hold "x"
	}{
		{"absolute name", (&archive{}).file("/abs/file", "x"), "abs/file"},
		{"many slashes", (&archive{}).file("//a//.///b", "x"), "a/b"},
		{"absolute symbolic link as parent", (&archive{}).symlink("l", "/outside").file("l/file", "x"), "outside/file"},
		{"absolute symbolic link to the real root", (&archive{}).symlink("l", "/").file("l/canary", "x"), "canary"},
		{"absolute symbolic link in a directory", (&archive{}).symlink("a/b/l", "/outside").file("a/b/l/file", "x"), "outside/file"},
		{"relative symbolic link in a directory", (&archive{}).symlink("a/b/l", "outside").file("a/b/l/file", "x"), "a/b/outside/file"},
		{"climbing symbolic link as parent", (&archive{}).symlink("a/l", "../../../outside").file("a/l/canary", "x"), "outside/canary"},
		{"chain of symbolic links", (&archive{}).symlink("a", "b").symlink("b", "/c/../d").file("a/canary", "x"), "d/canary"},
		{"symbolic link in place of the file", (&archive{}).symlink("f", "../outside/canary").file("f", "x"), "f"},
		{"hard link to a symbolic link in place of the file", (&archive{}).symlink("s", "../outside/canary").
			hardLink("f", "s").file("f", "x"), "f"},
		{"directory replaced by a symbolic link", (&archive{}).dir("d").file("d/y", "y").symlink("d", "../outside").
			file("d/canary", "x"), "outside/canary"},
		{"parent replaced while it is the current one", (&archive{}).file("d/e/y", "y").symlink("d", "/z").
			file("d/e/y", "x"), "z/e/y"},
		{"symbolic link replaced by a directory", (&archive{}).symlink("d", "../outside").dir("d").file("d/canary", "x"), "d/canary"},
		{"hard link with an absolute target", (&archive{}).file("a/b", "x").hardLink("c", "/a/b"), "c"},
		{"hard link through a symbolic link", (&archive{}).file("a/b", "x").symlink("l", "/a").hardLink("c", "l/b"), "c"},
		{"whiteout through a symbolic link", (&archive{}).symlink("l", "../outside").file("l/.wh.canary", "").file("f", "x"), "f"},
		{"opaque mark through a symbolic link", (&archive{}).symlink("l", "../outside").file("l/.wh..wh..opq", "").file("f", "x"), "f"},
		{"device through a symbolic link", (&archive{}).symlink("l", "../outside").
			block(block{kind: typeFIFO, name: "l/fifo"}).file("f", "x"), "f"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, err := unpack(t, bytes.NewReader(tt.in.end().Bytes()), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Lstat(filepath.Join(dir, tt.want))
			if err != nil || !st.Mode().IsRegular() {
				t.Fatalf("%s: %v, %v, want a regular file", tt.want, st, err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, tt.want)); string(got) != "x" {
				t.Errorf("%s holds %q, want x", tt.want, got)
			}
		})
	}
}

// TestAbsoluteLinkToRealFile aims at a file that exists, by its real path.
func TestAbsoluteLinkToRealFile(t *testing.T) {
	needRoot(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	in := (&archive{}).symlink("l", filepath.Dir(victim)).file("l/victim", "x").symlink("f", victim).file("f", "x").end()
	dir, _, err := unpack(t, in, Limits{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"f", victim} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != "x" {
			t.Errorf("%s in the layer: %q, %v", name, got, err)
		}
	}
	if got, _ := os.ReadFile(victim); string(got) != "untouched" {
		t.Errorf("victim holds %q", got)
	}
}

// TestReaderErrors: what the source reports at its end is the result, however good the archive was.
func TestReaderErrors(t *testing.T) {
	needRoot(t)
	good := (&archive{}).file("a", "x").end().Bytes()
	verdict := errors.New("digest mismatch")
	cutOff := fmt.Errorf("connection closed: %w", io.EOF)
	tests := []struct {
		name string
		in   io.Reader
		want error
	}{
		{"verdict at the end of the stream", io.MultiReader(bytes.NewReader(good), iotest.ErrReader(verdict)), verdict},
		{"verdict with the last bytes", iotest.DataErrReader(io.MultiReader(bytes.NewReader(good), iotest.ErrReader(verdict))), verdict},
		{"verdict behind more zeros than one buffer", io.MultiReader(bytes.NewReader(good),
			bytes.NewReader(make([]byte, 3*bufferSize)), iotest.ErrReader(verdict)), verdict},
		{"failure that wraps io.EOF", io.MultiReader(bytes.NewReader(good), iotest.ErrReader(cutOff)), cutOff},
		{"failure that wraps io.EOF in a header", io.MultiReader(bytes.NewReader(good[:512]), iotest.ErrReader(cutOff)), cutOff},
		{"error in the content", io.MultiReader(bytes.NewReader(good[:600]), iotest.ErrReader(verdict)), verdict},
		{"error in a header", io.MultiReader(bytes.NewReader(good[:100]), iotest.ErrReader(verdict)), verdict},
		{"reader that never reads", neverReader{}, io.ErrNoProgress},
		{"one byte at a time", iotest.OneByteReader(bytes.NewReader(good)), nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := unpack(t, tt.in, Limits{})
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
		})
	}
}

type neverReader struct{}

func (neverReader) Read([]byte) (int, error) { return 0, nil }

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	in := (&archive{}).file("a", "x").file("b", strings.Repeat("x", 4*bigWrite)).end().Bytes()
	for _, at := range []int{0, 600, 600 + 2*bigWrite, len(in)} {
		ctx, cancel = context.WithCancel(context.Background())
		r := io.MultiReader(bytes.NewReader(in[:at]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }),
			bytes.NewReader(in[at:]), bytes.NewReader(make([]byte, 1<<16)))
		if _, err := Layer(ctx, t.TempDir(), iotest.OneByteReader(r), Limits{}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d: got %v", at, err)
		}
	}
	cancel()
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) {
	n, err := f(b)
	if n == 0 && err == nil {
		err = io.EOF // the next reader's turn
	}
	return n, err
}

func TestDirectory(t *testing.T) {
	dir := t.TempDir()
	if _, err := Layer(context.Background(), filepath.Join(dir, "none"), &archive{}, Limits{}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("missing directory: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Layer(context.Background(), dir, &archive{}, Limits{}); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("directory with content: %v", err)
	}
	if _, err := Layer(context.Background(), filepath.Join(dir, "f"), &archive{}, Limits{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("file as directory: %v", err)
	}
}
