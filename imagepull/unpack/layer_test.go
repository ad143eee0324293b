// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// places are the filesystems that the tests write on: where the system's temporary files are, and tmpfs.
func places(t testing.TB) []string {
	dirs := []string{t.TempDir()}
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err == nil && st.Type == unix.TMPFS_MAGIC {
		dir, err := os.MkdirTemp("/dev/shm", "unpack")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		dirs = append(dirs, dir)
	}
	return dirs
}

// member is one entry for archive/tar's writer.
type member struct {
	tar.Header
	content string
}

func write(t testing.TB, members ...member) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if m.Typeflag == tar.TypeReg {
			m.Size = int64(len(m.content))
		}
		if err := w.WriteHeader(&m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(m.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func regular(mode uint32, owner, mtime, content string) string {
	return fmt.Sprintf("%07o %s %s size=%d sha256=%x", unix.S_IFREG|mode, owner, mtime, len(content), sha256.Sum256([]byte(content)))
}

const (
	epoch = "0.000000000"
	moved = "1700000000.123456789"
)

// TestAttributes pins what each kind of entry looks like on disk.
func TestAttributes(t *testing.T) {
	needRoot(t)
	when := time.Unix(1700000000, 123456789)
	header := func(kind byte, name string, mode int64) tar.Header {
		return tar.Header{Typeflag: kind, Name: name, Mode: mode, Uid: 1000, Gid: 2000, ModTime: when, Format: tar.FormatPAX}
	}
	// VFS_CAP_REVISION_2, effective, CAP_NET_RAW.
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	withXattrs := func(h tar.Header, pairs ...string) tar.Header {
		h.PAXRecords = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			h.PAXRecords["SCHILY.xattr."+pairs[i]] = pairs[i+1]
		}
		return h
	}
	link := func(kind byte, name, to string) tar.Header {
		h := header(kind, name, 0o777)
		h.Linkname = to
		return h
	}
	device := header(tar.TypeChar, "dev/null", 0o666)
	device.Devmajor, device.Devminor = 1, 3
	disk := header(tar.TypeBlock, "dev/sda", 0o660)
	disk.Devmajor, disk.Devminor = 259, 70000
	long := strings.Repeat("long/", 60) + strings.Repeat("n", 255)
	old := header(tar.TypeReg, "old", 0o644)
	old.ModTime = time.Unix(-2, 500000000)
	old.AccessTime = when
	in := write(t,
		member{header(tar.TypeDir, "./", 0o711), ""},
		member{header(tar.TypeDir, "empty", 0o1777), ""},
		member{header(tar.TypeDir, "setgid", 0o2770), ""},
		member{header(tar.TypeReg, "setgid/file", 0o644), "in setgid"},
		member{header(tar.TypeDir, "setgid/dir", 0o755), ""},
		member{header(tar.TypeReg, "suid", 0o4755), "runs as owner"},
		member{withXattrs(header(tar.TypeReg, "capable", 0o755), "security.capability", capability, "user.note", "a=b",
			"trusted.overlay.redirect", "/etc", "user.overlay.opaque", "y", "security.selinux", "u:r:t"), "can"},
		member{withXattrs(header(tar.TypeDir, "noted", 0o555), "user.note", "", "trusted.note", "x", "trusted.overlay.opaque", "y"), ""},
		member{withXattrs(link(tar.TypeSymlink, "s", "../../outside"), "trusted.note", "x"), ""},
		member{header(tar.TypeReg, "none", 0), "no permissions"},
		member{old, "before 1970"},
		member{link(tar.TypeLink, "h1", "suid"), ""},
		member{link(tar.TypeLink, "h2", "s"), ""},
		member{device, ""},
		member{disk, ""},
		member{header(tar.TypeFifo, "dev/fifo", 0o622), ""},
		member{header(tar.TypeReg, long, 0o600), "far away"},
		member{header(tar.TypeReg, "bytes-\xff\xfe", 0o644), "no UTF-8"},
		member{header(tar.TypeReg, "late/parent", 0o644), "first"},
		member{header(tar.TypeDir, "late", 0o700), ""},
	)
	stats := Stats{}
	for _, place := range places(t) {
		dir, s, err := unpackIn(t, place, bytes.NewReader(in.Bytes()), Limits{})
		if err != nil {
			t.Fatal(err)
		}
		stats = s
		got := snapshot(t, dir, nil)
		userNote := " user.note=613d62"
		userEmpty := " user.note="
		if s.SkippedXattrs["user.note"] > 0 { // tmpfs before Linux 6.6
			userNote, userEmpty = "", ""
		}
		const owner = "1000:2000"
		dirMode := func(mode uint32) string { return fmt.Sprintf("%07o %s %s", unix.S_IFDIR|mode, owner, moved) }
		want := map[string]string{
			".":              dirMode(0o711),
			"empty":          dirMode(0o1777),
			"setgid":         dirMode(0o2770),
			"setgid/file":    regular(0o644, owner, moved, "in setgid"),
			"setgid/dir":     dirMode(0o755),
			"suid":           regular(0o4755, owner, moved, "runs as owner"),
			"capable":        regular(0o755, owner, moved, "can") + fmt.Sprintf(" security.capability=%x", capability) + userNote,
			"noted":          dirMode(0o555) + " trusted.note=78" + userEmpty,
			"s":              fmt.Sprintf("%07o %s %s -> ../../outside", unix.S_IFLNK|0o777, owner, moved) + " trusted.note=78",
			"none":           regular(0, owner, moved, "no permissions"),
			"old":            regular(0o644, owner, "-2.500000000", "before 1970"),
			"dev":            "0040755 0:0 " + epoch,
			"dev/null":       fmt.Sprintf("%07o %s %s dev=1:3", unix.S_IFCHR|0o666, owner, moved),
			"dev/sda":        fmt.Sprintf("%07o %s %s dev=259:70000", unix.S_IFBLK|0o660, owner, moved),
			"dev/fifo":       fmt.Sprintf("%07o %s %s", unix.S_IFIFO|0o622, owner, moved),
			long:             regular(0o600, owner, moved, "far away"),
			"bytes-\xff\xfe": regular(0o644, owner, moved, "no UTF-8"),
			"late":           dirMode(0o700),
			"late/parent":    regular(0o644, owner, moved, "first"),
			"h1":             regular(0o4755, owner, moved, "runs as owner"),
			"h2":             fmt.Sprintf("%07o %s %s -> ../../outside trusted.note=78", unix.S_IFLNK|0o777, owner, moved),
		}
		for i := range 60 {
			want[strings.TrimSuffix(strings.Repeat("long/", i+1), "/")] = "0040755 0:0 " + epoch
		}
		// The walk is sorted: the hard links are seen first.
		want["suid"] += " same-as=h1"
		want["s"] = strings.Replace(want["s"], " trusted", " same-as=h2 trusted", 1)
		compare(t, got, want)
	}
	if stats.Bytes == 0 || stats.StreamBytes != int64(in.Len()) || len(stats.ImpliedDirs) != 61 || stats.ImpliedDirs[0] != "dev" {
		t.Errorf("stats %+v, want %d stream bytes and 61 implied directories", stats, in.Len())
	}
}

// TestOverlayForm pins whiteouts and opaque marks in every order.
func TestOverlayForm(t *testing.T) {
	needRoot(t)
	const (
		whiteout = "c 0:0"
		opaque   = "dir opaque"
	)
	tests := []struct {
		name string
		in   *archive
		want map[string]string
	}{
		{"whiteout", (&archive{}).file("d/.wh.gone", ""), map[string]string{"d": "dir", "d/gone": whiteout}},
		{"whiteout at the root", (&archive{}).file(".wh.gone", ""), map[string]string{"gone": whiteout}},
		{"whiteout twice", (&archive{}).file(".wh.gone", "").file(".wh.gone", ""), map[string]string{"gone": whiteout}},
		{"whiteout with content", (&archive{}).file(".wh.gone", "content").file("f", "x"), map[string]string{"gone": whiteout, "f": "file"}},
		{"whiteout that is a link", (&archive{}).file("f", "x").hardLink(".wh.gone", "f"), map[string]string{"gone": whiteout, "f": "file"}},
		{"whiteout before its file", (&archive{}).file(".wh.f", "").file("f", "x"), map[string]string{"f": "file"}},
		{"whiteout behind its file", (&archive{}).file("f", "x").file(".wh.f", ""), map[string]string{"f": "file"}},
		{"whiteout before its link", (&archive{}).file(".wh.l", "").symlink("l", "x"), map[string]string{"l": "link"}},
		{"whiteout before its directory", (&archive{}).file(".wh.d", "").dir("d").file("d/f", "x"), map[string]string{"d": opaque, "d/f": "file"}},
		{"whiteout behind its directory", (&archive{}).dir("d").file("d/f", "x").file(".wh.d", ""), map[string]string{"d": opaque, "d/f": "file"}},
		{"whiteout before its implied directory", (&archive{}).file(".wh.d", "").file("d/f", "x"), map[string]string{"d": opaque, "d/f": "file"}},
		{"whiteout behind its implied directory", (&archive{}).file("d/f", "x").file(".wh.d", ""), map[string]string{"d": opaque, "d/f": "file"}},
		{"hard link to a whited out name", (&archive{}).file("f", "x").dir("d").hardLink("d/l", "f").file(".wh.g", ""),
			map[string]string{"f": "file", "d": "dir", "d/l": "file", "g": whiteout}},
		{"opaque before its directory", (&archive{}).file("d/.wh..wh..opq", "").dir("d").file("d/f", "x"), map[string]string{"d": opaque, "d/f": "file"}},
		{"opaque behind its files", (&archive{}).dir("d").file("d/f", "x").file("d/.wh..wh..opq", ""), map[string]string{"d": opaque, "d/f": "file"}},
		{"opaque without its directory", (&archive{}).file("d/.wh..wh..opq", ""), map[string]string{"d": opaque}},
		{"opaque and whiteout", (&archive{}).dir("d").file("d/.wh..wh..opq", "").file("d/.wh.f", ""), map[string]string{"d": opaque, "d/f": whiteout}},
		{"opaque directory replaced by a file", (&archive{}).file("d/.wh..wh..opq", "").file("d", "x"), map[string]string{"d": "file"}},
		{"file replaced by a directory", (&archive{}).file("d", "x").dir("d"), map[string]string{"d": opaque}},
		{"aufs bookkeeping", (&archive{}).dir(".wh..wh.plnk").file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "").file("f", "x"),
			map[string]string{"f": "file"}},
		{"prefix inside of a name", (&archive{}).file("a.wh.b", "x").dir("x.wh.").file("x.wh./f", "x"),
			map[string]string{"a.wh.b": "file", "x.wh.": "dir", "x.wh./f": "file"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.in.end()
			for _, place := range places(t) {
				dir, stats, err := unpackIn(t, place, bytes.NewReader(tt.in.Bytes()), Limits{})
				if err != nil {
					t.Fatal(err)
				}
				got, whiteouts := map[string]string{}, 0
				for path, what := range snapshot(t, dir, nil) {
					if path == "." {
						continue
					}
					switch {
					case strings.HasPrefix(what, "002") && strings.HasSuffix(what, "dev=0:0"):
						got[path] = whiteout
						whiteouts++
					case strings.HasPrefix(what, "004") && strings.Contains(what, "trusted.overlay.opaque=79"):
						got[path] = opaque
					case strings.HasPrefix(what, "004"):
						got[path] = "dir"
					case strings.HasPrefix(what, "010"):
						got[path] = "file"
					case strings.HasPrefix(what, "012"):
						got[path] = "link"
					default:
						got[path] = what
					}
				}
				compare(t, got, tt.want)
				if stats.Whiteouts < whiteouts {
					t.Errorf("stats count %d whiteouts, there are %d", stats.Whiteouts, whiteouts)
				}
			}
		})
	}
}

func TestRootOpaque(t *testing.T) {
	needRoot(t)
	_, stats, err := unpack(t, (&archive{}).file(".wh..wh..opq", "").end(), Limits{})
	if err != nil || !stats.RootOpaque {
		t.Errorf("got %+v, %v, want RootOpaque", stats, err)
	}
	_, stats, err = unpack(t, (&archive{}).dir("d").file("d/.wh..wh..opq", "").end(), Limits{})
	if err != nil || stats.RootOpaque {
		t.Errorf("got %+v, %v, want no RootOpaque", stats, err)
	}
}

// TestReplaced pins what becomes of a name that comes twice.
func TestReplaced(t *testing.T) {
	needRoot(t)
	tests := []struct {
		name string
		in   *archive
		want map[string]string
	}{
		{"file by file", (&archive{}).file("a", "1").file("a", "22"), map[string]string{"a": "22"}},
		{"file by link", (&archive{}).file("a", "1").symlink("a", "b"), map[string]string{"a": "-> b"}},
		{"link by file", (&archive{}).symlink("a", "b").file("a", "1"), map[string]string{"a": "1"}},
		{"tree by file", (&archive{}).file("a/b/c", "1").file("a/d", "2").file("a", "3"), map[string]string{"a": "3"}},
		{"tree by link and back", (&archive{}).file("a/b/c", "1").symlink("a", "z").dir("a").file("a/d", "2"), map[string]string{"a/d": "2"}},
		{"directory by directory", (&archive{}).file("a/b", "1").dir("a").file("a/c", "2"), map[string]string{"a/b": "1", "a/c": "2"}},
		{"one of two hard links", (&archive{}).file("a", "1").hardLink("b", "a").file("a", "2"), map[string]string{"a": "2", "b": "1"}},
		{"hard link by the same link", (&archive{}).file("a", "1").hardLink("b", "a").hardLink("b", "a"), map[string]string{"a": "1", "b": "1"}},
		{"middle of three directories", (&archive{}).file("a/1/f", "1").file("a/2/f", "2").file("a/3/f", "3").file("a/2", "x").file("a/3", "y"),
			map[string]string{"a/1/f": "1", "a/2": "x", "a/3": "y"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, err := unpack(t, tt.in.end(), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]string{}
			filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				rel, _ := filepath.Rel(dir, path)
				if to, err := os.Readlink(path); err == nil {
					got[rel] = "-> " + to
				} else if b, err := os.ReadFile(path); err == nil {
					got[rel] = string(b)
				}
				return err
			})
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// TestSparse reads one file with holes in every form.
func TestSparse(t *testing.T) {
	needRoot(t)
	want := "\x00\x00ab\x00\x00\x00cd" + strings.Repeat("\x00", 8192)
	size := fmt.Sprint(len(want))
	old := func(b []byte) {
		clear(b[345:])
		for i, n := range []int64{2, 2, 7, 2, int64(len(want)), 0} {
			octal(b[386+12*i:398+12*i], n)
		}
		octal(b[483:495], int64(len(want)))
	}
	scattered := make([]string, 0, 200)
	var oldLong archive
	for i := range 60 { // 4 in the header, then three extension blocks
		scattered = append(scattered, fmt.Sprintf("%d,1", 100*i))
	}
	oldLong.block(block{kind: typeGNUSparse, name: "f", magic: "ustar  \x00", size: 60, patch: func(b []byte) {
		clear(b[345:])
		for i := range 4 {
			octal(b[386+24*i:][:12], int64(100*i))
			octal(b[398+24*i:][:12], 1)
		}
		b[482] = 1
		octal(b[483:495], 6000)
	}})
	for i := 4; i < 60; i += 21 {
		b := make([]byte, 512)
		for j := i; j < min(i+21, 60); j++ {
			octal(b[24*(j-i):][:12], int64(100*j))
			octal(b[24*(j-i)+12:][:12], 1)
		}
		if i+21 < 60 {
			b[504] = 1
		}
		oldLong.Write(b)
	}
	oldLong.body(strings.Repeat("x", 60))
	dots := bytes.Repeat([]byte("x"+strings.Repeat("\x00", 99)), 60)
	tests := []struct {
		name string
		in   *archive
		want string
	}{
		{"old GNU", (&archive{}).block(block{kind: typeGNUSparse, name: "f", magic: "ustar  \x00", size: 4, patch: old}).body("abcd"), want},
		{"old GNU with extensions", &oldLong, string(dots)},
		{"pax 0.0", (&archive{}).pax(record("GNU.sparse.size", size), record("GNU.sparse.numblocks", "2"), record("GNU.sparse.offset", "2"),
			record("GNU.sparse.numbytes", "2"), record("GNU.sparse.offset", "7"), record("GNU.sparse.numbytes", "2")).file("f", "abcd"), want},
		{"pax 0.1", (&archive{}).pax(record("GNU.sparse.size", size), record("GNU.sparse.numblocks", "2"), record("GNU.sparse.map", "2,2,7,2"),
			record("GNU.sparse.name", "f")).file("GNUSparseFile.1/f", "abcd"), want},
		{"pax 1.0", (&archive{}).pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", size),
			record("GNU.sparse.name", "f")).file("GNUSparseFile.1/f", padded("2\n2\n2\n7\n2\n")+"abcd"), want},
		{"pax 1.0 with a long map", (&archive{}).pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0"), record("GNU.sparse.realsize", "6000"),
			record("GNU.sparse.name", "f")).file("GNUSparseFile.1/f", padded("60\n"+strings.ReplaceAll(strings.Join(scattered, "\n"), ",", "\n")+"\n")+
			strings.Repeat("x", 60)), string(dots)},
		{"only a hole", (&archive{}).pax(record("GNU.sparse.size", size), record("GNU.sparse.numblocks", "0")).file("f", ""),
			strings.Repeat("\x00", len(want))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, err := unpack(t, tt.in.file("next", "x").end(), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, "f")); string(got) != tt.want {
				t.Errorf("got %d bytes %.40q, want %d bytes %.40q", len(got), got, len(tt.want), tt.want)
			}
			if got, _ := os.ReadFile(filepath.Join(dir, "next")); string(got) != "x" {
				t.Errorf("the next file holds %q", got)
			}
		})
	}
}

func padded(s string) string { return s + strings.Repeat("\x00", -len(s)&511) }

// TestAcceptedForms has headers that are odd and in use.
func TestAcceptedForms(t *testing.T) {
	needRoot(t)
	global := record("comment", "0123456789abcdef")
	tests := []struct {
		name string
		in   *archive
		file string
	}{
		{"v7", (&archive{}).block(block{kind: typeOldFile, name: "f", magic: "\x00", size: 1}).body("x"), "f"},
		{"v7 directory", (&archive{}).block(block{kind: typeOldFile, name: "d/", magic: "\x00"}).file("d/f", "x"), "d/f"},
		{"ustar prefix", (&archive{}).block(block{kind: typeFile, name: "f", prefix: "some/dir", size: 1}).body("x"), "some/dir/f"},
		{"name of 100 bytes", (&archive{}).file(strings.Repeat("n", 100), "x"), strings.Repeat("n", 100)},
		{"GNU magic with times where ustar has its prefix", (&archive{}).block(block{kind: typeFile, name: "f", magic: "ustar  \x00", size: 1,
			patch: func(b []byte) { octal(b[345:357], 1700000000) }}).body("x"), "f"},
		{"GNU long name", (&archive{}).block(block{kind: typeGNUName, name: "././@LongLink", size: 301}).body(strings.Repeat("dir/", 75)+"f\x00").
			file("cut off", "x"), strings.Repeat("dir/", 75) + "f"},
		{"contiguous file", (&archive{}).block(block{kind: typeContiguous, name: "f", size: 1}).body("x"), "f"},
		{"base-256 size", (&archive{}).block(block{kind: typeFile, name: "f", patch: func(b []byte) {
			copy(b[124:136], "\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
		}}).body("x"), "f"},
		{"number between spaces", (&archive{}).block(block{kind: typeFile, name: "f", patch: func(b []byte) { copy(b[124:136], "          1 ") }}).body("x"), "f"},
		{"mode with type bits", (&archive{}).block(block{kind: typeFile, name: "f", mode: 0o100644, size: 1}).body("x"), "f"},
		{"pax size that repeats the header's", (&archive{}).pax(record("size", "1")).file("f", "x"), "f"},
		{"git's global header", (&archive{}).block(block{kind: typePaxGlobal, name: "pax_global_header", size: int64(len(global))}).body(global).
			file("f", "x"), "f"},
		{"unknown pax records", (&archive{}).pax(record("VENDOR.key", "v"), record("VENDOR.key", "v"), record("atime", "1.5")).file("f", "x"), "f"},
		{"signed checksum", withSignedSum((&archive{}).block(block{kind: typeFile, name: "f\xff"[:1], patch: func(b []byte) { copy(b[265:], "\xe4\xf6") }, size: 1})).
			body("x"), "f"},
		{"ids without digits", (&archive{}).block(block{kind: typeFile, name: "f", size: 1, patch: func(b []byte) { clear(b[108:124]) }}).body("x"), "f"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir, _, err := unpack(t, tt.in.end(), Limits{})
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, tt.file)); string(got) != "x" {
				t.Errorf("%s holds %q, %v", tt.file, got, err)
			}
		})
	}
}

// withSignedSum replaces the checksum by that of signed bytes.
func withSignedSum(a *archive) *archive {
	h := a.Bytes()[:512]
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", signedSum(h)))
	return a
}

// TestManyOpenDirectories visits more directories in turn than are kept open, and links across them.
func TestManyOpenDirectories(t *testing.T) {
	needRoot(t)
	in := (&archive{}).file("target/f", "x")
	for round := range 3 {
		for i := range maxOpen * 2 {
			in.file(fmt.Sprintf("dir%d/a/b/c/file%d", i, round), "x")
			in.hardLink(fmt.Sprintf("dir%d/a/link%d", i, round), "target/f")
		}
	}
	dir, _, err := unpack(t, in.end(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "target/f"))
	if err != nil {
		t.Fatal(err)
	}
	last, err := os.Stat(filepath.Join(dir, fmt.Sprintf("dir%d/a/link2", maxOpen*2-1)))
	if err != nil || !os.SameFile(st, last) {
		t.Errorf("last link: %v", err)
	}
}

// TestLinkAcrossDeepDirectories has a hard link whose own directory and whose target's each take more opening than
// are kept open: opening the one must not close the other under it.
func TestLinkAcrossDeepDirectories(t *testing.T) {
	needRoot(t)
	deep, target := strings.Repeat("d/", maxOpen+30), strings.Repeat("t/", maxOpen+30)
	in := (&archive{}).pax(record("path", target+"f")).file("x", "right").pax(record("path", deep+"f")).file("x", "wrong")
	in.pax(record("path", deep+"link"), record("linkpath", target+"f")).hardLink("x", "x")
	dir, _, err := unpack(t, in.end(), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, deep, "link")); string(got) != "right" {
		t.Errorf("link holds %q, %v", got, err)
	}
}

// TestXattrResult: what may be left out where the filesystem cannot hold it.
func TestXattrResult(t *testing.T) {
	w := &writer{}
	tests := []struct {
		name string
		err  error
		want bool // of an error
	}{
		{"user.note", nil, false},
		{"user.note", unix.EOPNOTSUPP, false},
		{"trusted.note", unix.EOPNOTSUPP, false},
		{"user.note", unix.ENOSPC, true},
		{"user.note", unix.EPERM, true},
		{"security.capability", unix.EOPNOTSUPP, true},
		{"system.posix_acl_access", unix.EOPNOTSUPP, true},
	}
	for _, tt := range tests {
		if err := w.xattrResult(tt.name, tt.err); (err != nil) != tt.want {
			t.Errorf("%s, %v: got %v", tt.name, tt.err, err)
		}
	}
	for i := range 2 * maxSkippedNames {
		if err := w.xattrResult(fmt.Sprintf("user.%d", i), unix.EOPNOTSUPP); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(w.stats.SkippedXattrs); n != maxSkippedNames || w.stats.SkippedXattrs["user.note"] != 1 {
		t.Errorf("%d names are counted, want %d: %v", n, maxSkippedNames, w.stats.SkippedXattrs)
	}
}

// TestDescriptors: none is left behind, whether Layer succeeds or fails.
func TestDescriptors(t *testing.T) {
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skipf("needs /proc: %v", err)
		}
		return len(names)
	}
	before := count()
	for _, in := range []*archive{
		(&archive{}).file("a/b/c", "x").file("d/e", "x").end(),
		(&archive{}).file("a/b/c", "x").file("a/../x", "x").end(),
		cut((&archive{}).file("a/b/c", strings.Repeat("x", 1000)), 700),
		repeat(2*maxOpen, func(a *archive) { a.file(fmt.Sprintf("dir%d/f", a.Len()), "x") }),
	} {
		Layer(context.Background(), t.TempDir(), in, Limits{})
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
