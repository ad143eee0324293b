// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOpenBeneath: what a container has put in the way of a mount point leads nowhere else.
func TestOpenBeneath(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := errors.Join(os.Symlink(outside, filepath.Join(dir, "link")), os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for point, want := range map[string]error{
		dir + "/image": nil, dir + "/a/b/c": nil, dir + "/link/m": unix.ELOOP, dir + "/file/m": unix.ENOTDIR, dir: ErrOutside, dir + "x/m": ErrOutside, "/etc": ErrOutside,
	} {
		f, err := openBeneath([]string{"/nonexistent", dir}, point, enter)
		if !errors.Is(err, want) || (err == nil) != (want == nil) {
			t.Errorf("%s: got %v, want %v", point, err, want)
		}
		if err == nil {
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
		t.Errorf("something was made outside: %v", err)
	}
	// The last component too: it is where a link for a device is made, and never followed for a mount.
	o := &Mounted{Point: dir + "/link", Device: "/dev/null"}
	if err := o.place([]string{dir}, true); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a link as the mount point: %v", err)
	}
	if err := o.place([]string{dir}, false); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a link over a link: %v", err)
	}
}

// TestIsDisk: the plain side of an open volume is no place for scratch.
func TestIsDisk(t *testing.T) {
	sys := t.TempDir()
	if err := os.MkdirAll(filepath.Join(sys, "dev/block/1:3/dm"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := isDisk(sys, "/dev/null"); !errors.Is(err, errMapping) { // 1:3
		t.Errorf("a mapping: %v", err)
	}
	if err := isDisk(sys, "/dev/zero"); err != nil {
		t.Error(err)
	}
}
