// SPDX-License-Identifier: Apache-2.0

//go:build root

package main

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage"
)

// TestRootSizedExt4: a file system of our own making has exactly the room that was asked for, at any size.
func TestRootSizedExt4(t *testing.T) {
	dir := t.TempDir()
	for _, size := range []int64{1, 1 << 20, 100<<20 + 1, 1 << 30, 3 << 30} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			var st unix.Statfs_t
			if err := unix.Statfs(dir, &st); err != nil || int64(st.Bavail)*st.Bsize < 2*size {
				t.Fatalf("%s has no room for the test: %v", dir, err)
			}
			f, err := newExt4(sizedFS)
			if err != nil {
				t.Fatal(err)
			}
			point := t.TempDir()
			if err := storage.MountSized(dir, size, f, point); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := unix.Unmount(point, 0); err != nil {
					t.Error(err)
				}
			}()
			want := (size + 4095) / 4096 * 4096
			if err := unix.Statfs(point, &st); err != nil || int64(st.Bavail)*st.Bsize != want {
				t.Errorf("%d bytes free, %v, want %d", int64(st.Bavail)*st.Bsize, err, want)
			}
		})
	}
}
