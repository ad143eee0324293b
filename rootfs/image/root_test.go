// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/erofs/go-erofs"

	"github.com/casemate/casemate/verity"
)

// built is a root and its tree, as files.
type built struct {
	root, hash *os.File
	size       int64
	pin        verity.Pin
}

func build(t *testing.T, in Inputs) built { return buildAs(t, Erofs, in) }

func buildAs(t *testing.T, form FileSystem, in Inputs) built {
	t.Helper()
	dir := t.TempDir()
	create := func(name string) *os.File {
		f, err := os.Create(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = f.Close() })
		return f
	}
	b := built{root: create("root"), hash: create("hash")}
	var err error
	if b.size, err = WriteRoot(b.root, form, guestTree(t, in)); err != nil {
		t.Fatal(err)
	}
	if b.pin, err = HashRoot(t.Context(), b.root, b.size, b.hash); err != nil {
		t.Fatal(err)
	}
	return b
}

func content(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b built) parts(t *testing.T) (root, hash Part) {
	t.Helper()
	return Part{b.root, b.size}, Part{b.hash, int64(len(content(t, b.hash)))}
}

func (b built) disk(t *testing.T, table Table) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	root, hash := b.parts(t)
	size, err := WriteDisk(f, table, root, hash, b.pin)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(content(t, f)); int64(n) != size {
		t.Errorf("%s: the disk has %d bytes, said were %d", table, n, size)
	}
	return f
}

// TestRootTwice: two dates, two directories, two modes, the same bytes in every form.
func TestRootTwice(t *testing.T) {
	in := twice(t)
	for _, form := range []FileSystem{Erofs, Ext4} {
		if a, b := buildAs(t, form, in[0]), buildAs(t, form, in[1]); !bytes.Equal(content(t, a.root), content(t, b.root)) {
			t.Errorf("%s: two roots", form)
		}
	}
	a, b := build(t, in[0]), build(t, in[1])
	if !bytes.Equal(content(t, a.hash), content(t, b.hash)) || a.pin.Text() != b.pin.Text() {
		t.Error("two trees")
	}
	for _, table := range []Table{MSDOS, GPT} {
		if !bytes.Equal(content(t, a.disk(t, table)), content(t, b.disk(t, table))) {
			t.Errorf("%s: two disks", table)
		}
	}
}

// TestRootReadsBack opens the root with the library's reader and compares it with
// the tree, entry by entry.
func TestRootReadsBack(t *testing.T) {
	in := twice(t)[0]
	b := build(t, in)
	if n := len(content(t, b.root)); int64(n) != b.size || b.size%BlockSize != 0 {
		t.Errorf("%d bytes, said were %d", n, b.size)
	}
	root, err := erofs.Open(b.root)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[string]Entry)
	for _, e := range guestTree(t, in).Entries() {
		want[e.Path[1:]] = e
	}
	kinds := map[fs.FileMode]Kind{fs.ModeDir: Directory, 0: File, fs.ModeSymlink: Link, fs.ModeDevice | fs.ModeCharDevice: CharDevice}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		e, ok := want[name]
		delete(want, name)
		bits := uint32(info.Mode()) & 0o7777 // this reader keeps them as they lie on the disk
		if !ok || kinds[info.Mode().Type()] != e.Kind || e.Kind != Link && bits != e.Perm {
			t.Errorf("%s: mode %v, want %+v", name, info.Mode(), e)
		}
		if stat := info.Sys().(*erofs.Stat); stat.UID != 0 || stat.GID != 0 || stat.Mtime != 0 {
			t.Errorf("%s: owner %d:%d, time %d", name, stat.UID, stat.GID, stat.Mtime)
		}
		if e.Kind != File {
			return nil
		}
		r, size, err := e.open()
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r)
		if got, readErr := fs.ReadFile(root, name); readErr != nil || !bytes.Equal(got, text) || info.Size() != size {
			t.Errorf("%s: %d bytes, want %d (%v)", name, len(got), size, readErr)
		}
		return errors.Join(err, r.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

// TestRootIsPinned: one changed byte anywhere in the root or its tree does not match
// the pin, and kata's text says the same pin.
func TestRootIsPinned(t *testing.T) {
	b := build(t, twice(t)[0])
	check := func() error { return verity.Check(t.Context(), b.root, b.hash, b.pin) }
	if err := check(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []*os.File{b.root, b.hash} {
		all := content(t, f)
		for at := int64(len(all)) / 2; at < int64(len(all)); at += int64(len(all)) / 3 {
			flipped := []byte{all[at] ^ 1}
			if _, err := f.WriteAt(flipped, at); err != nil {
				t.Fatal(err)
			}
			if err := check(); f == b.root && err == nil {
				t.Errorf("a changed byte at %d of the root was not noticed", at)
			}
			if _, err := f.WriteAt(all[at:at+1], at); err != nil {
				t.Fatal(err)
			}
		}
	}
	text, err := b.pin.KernelParams()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := verity.ParsePin(text); err != nil || again.Text() != b.pin.Text() {
		t.Errorf("got %s, want %s (%v)", again.Text(), b.pin.Text(), err)
	}
	if _, err := HashRoot(t.Context(), b.root, b.size+BlockSize, b.hash); err == nil {
		t.Error("a root that is shorter than said was accepted")
	}
}

func TestRootFails(t *testing.T) {
	tree := guestTree(t, twice(t)[0])
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := WriteRoot(f, Erofs, tree); err == nil {
		t.Error("a file that cannot be written was not noticed")
	}
	if _, err := WriteRoot(f, "xfs", tree); err == nil {
		t.Error("a file system that nobody writes was accepted")
	}
	if err := tree.Add(Entry{Path: "/gone", Kind: File, HostPath: "/nonexistent"}); err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := WriteRoot(out, Erofs, tree); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: got %v", err)
	}
}
