// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// summary is what a reader of an archive understood of one entry.
type summary struct {
	kind       byte
	name, link string
	mode       uint32
	uid, gid   uint32
	sec        int64
	nsec       int64
	dev        string
	size       int64
	sum        [32]byte
	xattrs     string
}

// fuzzLimits keep one execution small.
func fuzzLimits() Limits {
	return Limits{Entries: 200, StreamBytes: 1 << 20, FileBytes: 1 << 16, Depth: 16, MemoryBytes: 1 << 16}
}

// ours reads an archive with this package's parser alone.
func ours(data []byte) ([]summary, error) {
	lim := fuzzLimits().withDefaults()
	w := &writer{ctx: context.Background(), lim: lim, in: newStream(bytes.NewReader(data), lim.StreamBytes, 2*blockSize)}
	var list []summary
	for {
		e, err := w.next()
		if err != nil {
			return nil, err
		}
		if e == nil {
			return list, w.in.drainZeros(w.ctx)
		}
		s := summary{kind: e.kind, name: e.name, mode: e.mode, uid: e.uid, gid: e.gid, sec: e.mtime.Sec, nsec: e.mtime.Nsec, size: e.realSize}
		if e.kind == typeSymlink || e.kind == typeHardLink {
			s.link = e.link
		}
		if e.kind == typeChar || e.kind == typeBlock {
			s.dev = fmt.Sprint(e.major, e.minor)
		}
		var names []string
		for _, x := range e.xattrs {
			names = append(names, fmt.Sprintf("%q=%q", x.name, x.value))
		}
		sort.Strings(names)
		s.xattrs = strings.Join(names, " ")
		stored, err := w.in.append(nil, e.size)
		if err != nil {
			return nil, err
		}
		content := make([]byte, e.realSize)
		if e.sparse == nil {
			copy(content, stored)
		}
		for _, seg := range e.sparse {
			stored = stored[copy(content[seg.offset:seg.offset+seg.length], stored):]
		}
		s.sum = sha256.Sum256(content)
		list = append(list, s)
	}
}

// theirs reads an archive with the standard library.
func theirs(data []byte) ([]summary, error) {
	r := tar.NewReader(bytes.NewReader(data))
	var list []summary
	for {
		h, err := r.Next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		s := summary{kind: h.Typeflag, name: h.Name, mode: uint32(h.Mode) & 0o7777, uid: uint32(h.Uid), gid: uint32(h.Gid),
			sec: h.ModTime.Unix(), nsec: int64(h.ModTime.Nanosecond()), size: h.Size}
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeCont, tar.TypeGNUSparse:
			s.kind = tar.TypeReg
		case tar.TypeSymlink, tar.TypeLink:
			s.link = h.Linkname
		case tar.TypeChar, tar.TypeBlock:
			s.dev = fmt.Sprint(h.Devmajor, h.Devminor)
		}
		var names []string
		for key, value := range h.PAXRecords {
			if name, ok := strings.CutPrefix(key, "SCHILY.xattr."); ok {
				names = append(names, fmt.Sprintf("%q=%q", name, value))
			}
		}
		sort.Strings(names)
		s.xattrs = strings.Join(names, " ")
		hash := sha256.New()
		if _, err := io.Copy(hash, r); err != nil {
			return list, err
		}
		hash.Sum(s.sum[:0])
		list = append(list, s)
	}
}

// seeds are small archives of every form.
func seeds(f *testing.F, add func([]byte)) {
	global := record("comment", "c")
	for _, a := range []*archive{
		{},
		(&archive{}).file("a/b", "content").dir("a/").symlink("l", "../../outside").file("l/canary", "x").hardLink("h", "l"),
		(&archive{}).file("d/.wh.x", "").file("d/.wh..wh..opq", "").file(".wh.d", "").dir("d"),
		(&archive{}).pax(record("path", "long"), record("size", "3"), record("mtime", "-1.5"), record("uid", "7"),
			record("SCHILY.xattr.user.a", "b")).file("x", "abc"),
		(&archive{}).block(block{kind: typePaxGlobal, size: int64(len(global))}).body(global).file("x", "abc"),
		(&archive{}).block(block{kind: typeGNUName, size: 5}).body("name\x00").block(block{kind: typeGNULink, size: 5}).body("link\x00").symlink("s", "t"),
		(&archive{}).pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "20"),
			record("GNU.sparse.name", "f")).file("GNUSparseFile.1/f", padded("2\n2\n2\n7\n2\n")+"abcd"),
		(&archive{}).pax(record("GNU.sparse.size", "20"), record("GNU.sparse.numblocks", "2"), record("GNU.sparse.map", "2,2,7,2")).file("f", "abcd"),
		(&archive{}).block(block{kind: typeGNUSparse, name: "f", magic: "ustar  \x00", size: 4, patch: func(b []byte) {
			clear(b[345:])
			for i, n := range []int64{2, 2, 7, 2, 20, 0} {
				octal(b[386+12*i:398+12*i], n)
			}
			octal(b[483:495], 20)
		}}).body("abcd"),
		(&archive{}).block(block{kind: typeBlock, name: "dev", patch: func(b []byte) { octal(b[337:345], 5) }}).block(block{kind: typeFIFO, name: "p"}),
		(&archive{}).block(block{kind: typeOldFile, name: "d/", magic: "\x00"}).block(block{kind: typeFile, name: "f", prefix: "d", magic: "ustar\x0000"}),
	} {
		add(bytes.Clone(a.end().Bytes()))
	}
}

// checksummed makes header checksums right, so that the fuzzer gets past them.
func checksummed(data []byte) []byte {
	data = bytes.Clone(data)
	for at := 0; at+blockSize <= len(data); at += blockSize {
		h := data[at : at+blockSize]
		if h[156] == 0 && h[0] == 0 || !bytes.Contains(h[257:265], []byte("ustar")) {
			continue
		}
		copy(h[148:156], "        ")
		sum := 0
		for _, c := range h {
			sum += int(c)
		}
		copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	}
	return data
}

// FuzzReaders: an archive that this package accepts is read the same by the standard library.
func FuzzReaders(f *testing.F) {
	seeds(f, func(raw []byte) { f.Add(raw) })
	f.Fuzz(func(t *testing.T, data []byte) {
		data = checksummed(data)
		got, err := ours(data)
		if err != nil {
			return
		}
		// The other reader wants whole blocks of zeros at the end; more zeros change nothing.
		want, err := theirs(append(data, make([]byte, 2*blockSize)...))
		if err != nil {
			t.Fatalf("accepted what archive/tar refuses: %v", err)
		}
		if len(got) != len(want) {
			t.Fatalf("read %d entries, archive/tar %d", len(got), len(want))
		}
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("entry %d\n  ours %+v\ntheirs %+v", i, got[i], want[i])
			}
		}
	})
}

// assemble makes an archive of a script, three bytes an entry: what, its name, its target. Names are few, so that
// entries meet.
func assemble(script []byte) *archive {
	names := []string{"a", "b", "c", "a/b", "b/a", "a/b/c", "a/a/a", "b/c/a", "./a", "/b", "a/../c", "../outside/canary", "..", ".", "",
		".wh.a", "a/.wh.b", ".wh..wh..opq", "a/.wh..wh..opq", "b/.wh.a", ".wh...", ".wh..wh.plnk/a", ".wh.a/b", "a//b", "b/./a", "c/a", "c/b/a"}
	links := append([]string{"../outside", "../outside/canary", "/", "/outside", "..", "../..", "b/../../outside", "/a/../.."}, names...)
	a := &archive{}
	for ; len(script) >= 3; script = script[3:] {
		name := names[int(script[1])%len(names)]
		link := links[int(script[2])%len(links)]
		switch script[0] % 10 {
		case 0, 1:
			a.file(name, link)
		case 2, 3:
			a.dir(name)
		case 4, 5:
			a.symlink(name, link)
		case 6:
			a.hardLink(name, link)
		case 7:
			a.block(block{kind: typeFIFO, name: name})
		case 8:
			a.pax(record("path", "x/"+name), record("linkpath", "x/"+link), record("SCHILY.xattr.trusted.overlay.redirect", "/")).symlink("s", "s")
		case 9:
			a.pax(record("GNU.sparse.size", "100"), record("GNU.sparse.numblocks", "1"), record("GNU.sparse.map", fmt.Sprintf("%d,3", script[2]))).
				file(name, "abc")
		}
	}
	return a
}

// scripts are the archives that the fuzzers begin with.
func scripts() []string {
	return []string{
		"\x04\x00\x00\x00\x03\x01",                                     // a -> ../outside, a/b
		"\x02\x00\x00\x04\x00\x01\x00\x00\x00",                         // a/, a -> ../outside/canary, a
		"\x00\x05\x00\x00\x0f\x00\x00\x12\x00\x02\x00\x00",             // a/b/c, .wh.a, a/.wh..wh..opq, a/
		"\x04\x00\x02\x06\x01\x09\x00\x01\x00\x08\x00\x00\x09\x02\x10", // links, hard links, attributes, holes
	}
}

// FuzzLayer: nothing is written outside, no error is without a cause, nothing panics. The archive is that of a
// script with a tail of free bytes.
func FuzzLayer(f *testing.F) {
	seeds(f, func(raw []byte) { f.Add([]byte{}, raw) })
	for _, script := range scripts() {
		f.Add([]byte(script), []byte{})
	}
	f.Fuzz(func(t *testing.T, script, tail []byte) {
		in := assemble(script)
		in.Write(checksummed(tail))
		if len(tail) == 0 {
			in.end()
		}
		dir, stats, err := layerIn(t, shortLived(t), in, fuzzLimits())
		if err != nil {
			var errno unix.Errno
			named := errors.As(err, &errno)
			for _, sentinel := range []error{ErrFormat, ErrTruncated, ErrTrailing, ErrEscape, ErrLimit} {
				named = named || errors.Is(err, sentinel)
			}
			if !named {
				t.Fatalf("error without a cause: %v", err)
			}
			return
		}
		for _, implied := range stats.ImpliedDirs {
			if st, err := os.Lstat(filepath.Join(dir, implied)); err != nil || !st.IsDir() {
				t.Errorf("implied directory %q: %v", implied, err)
			}
		}
		for path, what := range snapshot(t, dir, nil) {
			if strings.Contains(path, "/.wh.") || strings.HasPrefix(path, ".wh.") || strings.Contains(what, "redirect") {
				t.Errorf("made %q %s", path, what)
			}
		}
	})
}

// FuzzImage: whatever Layer makes of an archive, Image makes the same, verdict, statistics and tree, and the kernel
// mounts it.
func FuzzImage(f *testing.F) {
	for _, script := range scripts() {
		f.Add([]byte(script), []byte{})
	}
	seeds(f, func(raw []byte) { f.Add([]byte{}, raw) })
	f.Fuzz(func(t *testing.T, script, tail []byte) {
		needRoot(t)
		in := assemble(script)
		in.Write(checksummed(tail))
		if len(tail) == 0 {
			in.end()
		}
		unpackIn(t, shortLived(t), in, Limits{Entries: 200, StreamBytes: 1 << 20, FileBytes: 1 << 16, Depth: 16, MemoryBytes: 1 << 20})
	})
}

// shortLived is a directory of this execution, in memory where there is one.
func shortLived(t *testing.T) string {
	if dir, err := os.MkdirTemp("/dev/shm", "fuzz"); err == nil {
		t.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}
