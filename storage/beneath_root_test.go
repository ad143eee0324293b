// SPDX-License-Identifier: Apache-2.0

//go:build root

package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRootUndoBeneath attacks the unmounting of a volume: its path is moved by a container and leads, by a link, to a mount
// of somebody else's. That stays; the volume's goes once the path is what it was.
func TestRootUndoBeneath(t *testing.T) {
	image, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(image.Truncate(32<<20), mkfs{t}.Format(image, 32<<20)); err != nil {
		t.Fatal(err)
	}
	loop, err := attach(image)
	if err != nil {
		t.Fatal(err)
	}
	below, outside := t.TempDir(), t.TempDir()
	container := filepath.Join(below, "container")
	o := &Mounted{Point: filepath.Join(container, "m"), Device: loop.Name()}
	if err := errors.Join(o.place([]string{below}, true), loop.Close(), image.Close()); err != nil {
		t.Fatal(err)
	}
	if o.gone() {
		t.Error("mounted, and taken for gone")
	}
	others := filepath.Join(outside, "m")
	err = errors.Join(os.Mkdir(others, 0o755), unix.Mount("tmpfs", others, "tmpfs", 0, ""),
		os.Rename(container, container+"-moved"), os.Symlink(outside, container))
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Close(); !errors.Is(err, unix.ELOOP) {
		t.Errorf("got %v", err)
	}
	if err := unix.Unmount(others, 0); err != nil {
		t.Errorf("the mount of somebody else: %v", err)
	}
	if err := errors.Join(os.Remove(container), os.Rename(container+"-moved", container), o.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.Point); err != nil {
		t.Errorf("it is mounted still: %v", err)
	}
	// Unmounted by its user, with all of its path: nothing is left to undo.
	again := &Mounted{Point: o.Point}
	if err := errors.Join(os.RemoveAll(container), again.beneath([]string{below}, func(int) error { return errors.New("something") })()); err != nil {
		t.Error(err)
	}
}
