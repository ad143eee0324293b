// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// createResult says what a file made in this filesystem by this process comes out as, so that system calls which
// would change nothing can be left out.
type createResult struct {
	known    bool
	uid, gid uint32
	mask     uint32 // permission bits that survive the umask
}

// probeCreate finds out with a file that has no name.
func probeCreate(dir string) (createResult, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o777)
	if err != nil {
		return createResult{}, nil // not every filesystem can; attributes are then set one by one
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return createResult{}, fmt.Errorf("probing %s: %w", dir, err)
	}
	return createResult{known: true, uid: st.Uid, gid: st.Gid, mask: st.Mode & 0o777}, nil
}

// settle sets the attributes of an open file: owner, then mode, then attributes, for each of these may undo the
// ones after it; times last.
func (d *disk) settle(fd int, e *entry) error {
	chown := !d.create.known || e.uid != d.create.uid || e.gid != d.create.gid
	if chown {
		if err := unix.Fchown(fd, int(e.uid), int(e.gid)); err != nil {
			return fmt.Errorf("setting owner %d:%d: %w", e.uid, e.gid, err)
		}
	}
	if !d.create.known || e.mode&^d.create.mask != 0 {
		if err := unix.Fchmod(fd, e.mode); err != nil {
			return fmt.Errorf("setting mode %#o: %w", e.mode, err)
		}
	}
	for _, x := range e.xattrs {
		if foreign(x.name) {
			continue
		}
		if err := d.w.xattrResult(x.name, unix.Fsetxattr(fd, x.name, x.value, 0)); err != nil {
			return err
		}
	}
	if err := futimens(fd, e.mtime); err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return nil
}

// settleAt does the same for what cannot be opened: symbolic links, devices, FIFOs. up/base was just made here.
func (d *disk) settleAt(up int, base string, e *entry) error {
	if !d.create.known || e.uid != d.create.uid || e.gid != d.create.gid {
		if err := unix.Fchownat(up, base, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("setting owner %d:%d: %w", e.uid, e.gid, err)
		}
	}
	// A symbolic link has no mode. For the others plain fchmodat is right on every kernel: AT_SYMLINK_NOFOLLOW came
	// with Linux 6.6, and base is not a symbolic link.
	if e.kind != typeSymlink && (!d.create.known || e.mode&^d.create.mask != 0) {
		if err := unix.Fchmodat(up, base, e.mode, 0); err != nil {
			return fmt.Errorf("setting mode %#o: %w", e.mode, err)
		}
	}
	for _, x := range e.xattrs {
		if foreign(x.name) {
			continue
		}
		// There is no lsetxattr relative to a directory before Linux 6.13; up is named through procfs instead.
		path := "/proc/self/fd/" + strconv.Itoa(up) + "/" + base
		err := unix.Lsetxattr(path, x.name, x.value, 0)
		if errors.Is(err, unix.EPERM) && strings.HasPrefix(x.name, "user.") {
			err = unix.EOPNOTSUPP // xattr(7): user.* is for files and directories only
		}
		if err := d.w.xattrResult(x.name, err); err != nil {
			return err
		}
	}
	times := []unix.Timespec{e.mtime, e.mtime}
	if err := unix.UtimesNanoAt(up, base, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return nil
}

// finish sets a directory's attributes.
func (d *disk) finish(n *node) error {
	fd, err := d.fd(n)
	if err == nil && n.opaque && n != d.root {
		if err = unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			err = fmt.Errorf("marking opaque: %w", err)
		}
	}
	if err == nil && n.hides && n != d.root {
		if err = unix.Fsetxattr(fd, originXattr, nil, 0); err != nil {
			err = fmt.Errorf("marking whiteouts: %w", err)
		}
	}
	if err == nil {
		err = d.settleDir(fd, n)
	}
	return err
}

// settleDir is settle for a directory, which was made 0700 or, the root, by the caller.
func (d *disk) settleDir(fd int, n *node) error {
	if n == d.root || !d.create.known || n.uid != d.create.uid || n.gid != d.create.gid {
		if err := unix.Fchown(fd, int(n.uid), int(n.gid)); err != nil {
			return fmt.Errorf("setting owner %d:%d: %w", n.uid, n.gid, err)
		}
	}
	if err := unix.Fchmod(fd, n.mode); err != nil {
		return fmt.Errorf("setting mode %#o: %w", n.mode, err)
	}
	for _, x := range n.xattrs {
		if foreign(x.name) {
			continue
		}
		if err := d.w.xattrResult(x.name, unix.Fsetxattr(fd, x.name, x.value, 0)); err != nil {
			return err
		}
	}
	if err := futimens(fd, n.mtime); err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return nil
}
