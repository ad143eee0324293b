// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// rootPoint is made and removed again in the initramfs.
const rootPoint = "/.root"

// settleRoot puts an initramfs in a place that can be left by pivot_root(2). The kernel unpacks it into "rootfs",
// the bottom of the mount tree, which has no parent mount and from which pivot_root is refused; a container run-time
// then falls back to a weaker way in. A bind mount of the same files, moved over the old root, has a parent. With
// any other root there is nothing to do.
//
// Nothing may be mounted below the root yet.
func settleRoot() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return fmt.Errorf("looking at the root: %w", err)
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		return nil
	}
	if err := os.Mkdir(rootPoint, 0o700); err != nil {
		return fmt.Errorf("making %s: %w", rootPoint, err)
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"binding the root", func() error { return unix.Mount("/", rootPoint, "", unix.MS_BIND, "") }},
		{"entering the new root", func() error { return unix.Chdir(rootPoint) }},
		{"moving the new root", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"changing the root", func() error { return unix.Chroot(".") }},
		{"entering the root", func() error { return unix.Chdir("/") }},
		{"removing " + rootPoint, func() error { return unix.Rmdir(rootPoint) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// leaveProc undoes the mount of the clean start, so that the root is bare.
func leaveProc() error {
	if err := unix.Unmount(procPath, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting %s: %w", procPath, err)
	}
	return nil
}
