// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sample writes one of everything.
func sample(w *Writer) error {
	return errors.Join(
		w.Dir("/etc", 0o755), w.File("/etc/empty", 0o600, 0, strings.NewReader("")), w.File("/etc/text", 0o644, 5, strings.NewReader("hello")),
		w.File("/usr/lib/big", 0o755, 9000, bytes.NewReader(bytes.Repeat([]byte("123456789"), 1000))), w.Dir("/tmp", 0o1777),
		w.Symlink("/short", "usr/lib/big"), w.Symlink("/long", strings.Repeat("x", 300)), w.CharDevice("/dev/null", 0o666, 1, 3),
		w.BlockDevice("/dev/disk", 0o600, 259, 70000), w.FIFO("/pipe", 0o600), w.File("/ping", 0o755, 4, strings.NewReader("ping")), w.Link("/later", "/ping"),
		w.Set("/ping", Attributes{Perm: 0o4755, UID: 100000, GID: 200000, Modified: -1 << 29, Capability: []byte("0123456789abcdefghij")}),
		w.Set("/", Attributes{Perm: 0o750}),
	)
}

func create(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "root.ext4"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestSameCallsSameBytes(t *testing.T) {
	var images [2][]byte
	for i := range images {
		f := create(t)
		w := NewWriter(f)
		if err := sample(w); err != nil {
			t.Fatal(err)
		}
		size, err := w.Close()
		if err != nil {
			t.Fatal(err)
		}
		if images[i], err = os.ReadFile(f.Name()); err != nil || int64(len(images[i])) != size || size%BlockSize != 0 {
			t.Fatalf("%d bytes, said were %d (%v)", len(images[i]), size, err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two images")
	}
}

func TestRefused(t *testing.T) {
	for name, add := range map[string]func(*Writer) error{
		"relative":            func(w *Writer) error { return w.Dir("etc", 0o755) },
		"up":                  func(w *Writer) error { return w.Dir("/a/../b", 0o755) },
		"root":                func(w *Writer) error { return w.Dir("/", 0o755) },
		"twice":               func(w *Writer) error { return errors.Join(w.Dir("/a", 0o755), w.Dir("/a", 0o755)) },
		"long name":           func(w *Writer) error { return w.Dir("/"+strings.Repeat("a", 256), 0o755) },
		"below a file":        func(w *Writer) error { return errors.Join(w.File("/a", 0o644, 0, nil), w.Dir("/a/b", 0o755)) },
		"short content":       func(w *Writer) error { return w.File("/a", 0o644, 6, strings.NewReader("hello")) },
		"too large":           func(w *Writer) error { return w.File("/a", 0o644, MaxFile+1, nil) },
		"empty target":        func(w *Writer) error { return w.Symlink("/a", "") },
		"long target":         func(w *Writer) error { return w.Symlink("/a", strings.Repeat("a", BlockSize)) },
		"large minor number":  func(w *Writer) error { return w.CharDevice("/dev/a", 0o600, 1, 1<<20) },
		"large major number":  func(w *Writer) error { return w.BlockDevice("/dev/a", 0o600, 1<<12, 0) },
		"link to nothing":     func(w *Writer) error { return w.Link("/a", "/b") },
		"link to a directory": func(w *Writer) error { return w.Link("/a", "/lost+found") },
		"link over a file":    func(w *Writer) error { return errors.Join(w.FIFO("/a", 0o600), w.Link("/a", "/a")) },
		"attributes of none":  func(w *Writer) error { return w.Set("/a", Attributes{}) },
		"a large mode":        func(w *Writer) error { return w.Set("/", Attributes{Perm: 1 << 12}) },
		"a time too late":     func(w *Writer) error { return w.Set("/", Attributes{Modified: maxTime + 1}) },
		"a large attribute":   func(w *Writer) error { return w.Set("/", Attributes{Capability: make([]byte, 25)}) },
		"many directories": func(w *Writer) (err error) {
			for i := range maxLinks {
				err = errors.Join(err, w.Dir(fmt.Sprintf("/%d", i), 0o755))
			}
			return err
		},
	} {
		w := NewWriter(create(t))
		if err := add(w); err == nil {
			t.Errorf("%s: added", name)
		}
		if _, err := w.Close(); err == nil {
			t.Errorf("%s: Close returns no error", name)
		}
	}
}

// TestPlan: the groups have room for the data, for what describes it and for every inode.
func TestPlan(t *testing.T) {
	for _, c := range []struct{ used, inodes int64 }{{2, 11}, {30000, 11}, {groupBlocks - 3, 11}, {groupBlocks, 40000}, {2, 40000}, {2, 1 << 18}, {5 * groupBlocks, 100000}, {100 * groupBlocks, 1 << 18}} {
		l, err := plan(c.used, c.inodes)
		if err != nil || l.blocks > l.groups*groupBlocks || l.blocks <= (l.groups-1)*groupBlocks || l.perGroup*l.groups < c.inodes || l.perGroup > groupBlocks || l.free < 0 || l.blocks-l.free != c.used+l.groups*(2+l.tables) {
			t.Errorf("%+v: %+v, %v", c, l, err)
		}
	}
	if l, err := plan(maxGroups*groupBlocks, 11); err == nil {
		t.Errorf("over all groups: %+v", l)
	}
}

// large is a file of which the test's image keeps hardly anything.
func large(w *Writer, files int, size int64) error {
	var err error
	for i := range files {
		err = errors.Join(err, w.File(fmt.Sprintf("/many/%0200d", i), 0o644, size, io.LimitReader(zeros{}, size)))
	}
	return err
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}
