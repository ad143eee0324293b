// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// block is one header block to be written, every field as wanted, right or wrong.
type block struct {
	kind   byte
	name   string
	link   string
	prefix string
	magic  string // default "ustar\x0000"
	size   int64
	mode   int64 // default 0644, 0755 for directories
	mtime  int64
	patch  func(b []byte) // last, before the checksum
	badSum bool
}

// archive builds a tar stream block by block.
type archive struct{ bytes.Buffer }

// octal writes n into a numeric field.
func octal(field []byte, n int64) {
	copy(field, fmt.Sprintf("%0*o\x00", len(field)-1, n))
}

func (a *archive) block(h block) *archive {
	b := make([]byte, blockSize)
	copy(b[:100], h.name)
	if h.mode == 0 {
		h.mode = 0o644
		if h.kind == typeDir {
			h.mode = 0o755
		}
	}
	octal(b[100:108], h.mode)
	// The test's own ids, so that the parser's tests need no rights.
	octal(b[108:116], int64(os.Getuid()))
	octal(b[116:124], int64(os.Getgid()))
	octal(b[124:136], h.size)
	octal(b[136:148], h.mtime)
	b[156] = h.kind
	copy(b[157:257], h.link)
	if h.magic == "" {
		h.magic = "ustar\x0000"
	}
	copy(b[257:265], h.magic)
	copy(b[345:500], h.prefix)
	if h.patch != nil {
		h.patch(b)
	}
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b {
		sum += int(c)
	}
	if h.badSum {
		sum++
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	a.Write(b)
	return a
}

// body writes content and filler.
func (a *archive) body(content string) *archive {
	a.WriteString(content)
	a.Write(make([]byte, -len(content)&(blockSize-1)))
	return a
}

func (a *archive) file(name, content string) *archive {
	return a.block(block{kind: typeFile, name: name, size: int64(len(content))}).body(content)
}

func (a *archive) dir(name string) *archive {
	return a.block(block{kind: typeDir, name: name})
}

func (a *archive) symlink(name, to string) *archive {
	return a.block(block{kind: typeSymlink, name: name, link: to})
}

func (a *archive) hardLink(name, to string) *archive {
	return a.block(block{kind: typeHardLink, name: name, link: to})
}

// record is one pax record with its length.
func record(key, value string) string {
	n := len(key) + len(value) + 3
	for {
		s := fmt.Sprintf("%d %s=%s\n", n, key, value)
		if len(s) == n {
			return s
		}
		n = len(s)
	}
}

// pax writes an extended header with the records.
func (a *archive) pax(records ...string) *archive {
	body := strings.Join(records, "")
	return a.block(block{kind: typePax, name: "PaxHeaders/x", size: int64(len(body))}).body(body)
}

func (a *archive) end() *archive {
	a.Write(make([]byte, 2*blockSize))
	return a
}

// needRoot skips what only root can do.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: changes owners, makes devices, sets trusted.* attributes")
	}
}

// unpack runs Layer on a fresh directory and returns it. Around it stands a canary that must survive.
func unpack(t testing.TB, r io.Reader, lim Limits) (string, Stats, error) {
	t.Helper()
	return unpackIn(t, t.TempDir(), r, lim)
}

// unpackIn does so below around. It also makes an image of the same archive, which has to come out the same.
func unpackIn(t testing.TB, around string, r io.Reader, lim Limits) (string, Stats, error) {
	t.Helper()
	data := archived(r)
	dir, stats, err := layerIn(t, around, r, lim)
	if data != nil && os.Getuid() == 0 {
		sameImage(t, data, lim, dir, stats, err)
	}
	return dir, stats, err
}

// layerIn is unpackIn without the image.
func layerIn(t testing.TB, around string, r io.Reader, lim Limits) (string, Stats, error) {
	t.Helper()
	around, err := os.MkdirTemp(around, "unpack")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(around) })
	dir := filepath.Join(around, "layer")
	for _, d := range []string{"layer", "outside"} {
		if err := os.Mkdir(filepath.Join(around, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	canary := filepath.Join(around, "outside", "canary")
	if err := os.WriteFile(canary, []byte("untouched"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := outside(t, around)
	stats, err := Layer(context.Background(), dir, r, lim)
	compare(t, outside(t, around), before)
	return dir, stats, err
}

// outside describes what stands beside the layer.
func outside(t testing.TB, around string) map[string]string {
	t.Helper()
	got := snapshot(t, around, func(path string) bool { return path == "layer" })
	delete(got, ".")
	return got
}

// snapshot describes every file beneath dir: type and mode, owner, size, time, links, device, attributes, content.
func snapshot(t testing.TB, dir string, skip func(path string) bool) map[string]string {
	t.Helper()
	got := map[string]string{}
	inodes := map[uint64]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		if skip != nil && skip(rel) {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		what := fmt.Sprintf("%07o %d:%d %d.%09d", st.Mode, st.Uid, st.Gid, st.Mtim.Sec, st.Mtim.Nsec)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += fmt.Sprintf(" size=%d sha256=%x", st.Size, sha256.Sum256(content))
		case unix.S_IFLNK:
			to, _ := os.Readlink(path)
			what += " -> " + to
		case unix.S_IFCHR, unix.S_IFBLK:
			what += fmt.Sprintf(" dev=%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
		}
		if st.Nlink > 1 && !entry.IsDir() {
			if first, ok := inodes[st.Ino]; ok {
				what += " same-as=" + first
			} else {
				inodes[st.Ino] = rel
			}
		}
		got[rel] = what + xattrs(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func xattrs(t testing.TB, path string) string {
	t.Helper()
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil {
		return ""
	}
	names := strings.Split(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00")
	sort.Strings(names)
	out := ""
	for _, name := range names {
		if name == "" {
			continue
		}
		value := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			t.Fatalf("reading attribute %s of %s: %v", name, path, err)
		}
		out += fmt.Sprintf(" %s=%x", name, value[:n])
	}
	return out
}

// compare reports every difference between two snapshots.
func compare(t testing.TB, got, want map[string]string) {
	t.Helper()
	for path, w := range want {
		if g, ok := got[path]; !ok {
			t.Errorf("%s is missing, want %s", quote(path), w)
		} else if g != w {
			t.Errorf("%s\n got %s\nwant %s", quote(path), g, w)
		}
	}
	for path, g := range got {
		if _, ok := want[path]; !ok {
			t.Errorf("%s is there, %s, want nothing", quote(path), g)
		}
	}
}
