// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// opaqueXattr marks a directory that hides the lower layers' (kernel Documentation/filesystems/overlayfs.rst).
const opaqueXattr = "trusted.overlay.opaque"

// originXattr, empty, is overlayfs's mark of a directory copied up from nobody knows where. It is set on directories
// with whiteouts: without it overlayfs lists a directory that no lower layer shares as it is, whiteouts included, each
// of which is then a name that cannot be opened (fs/overlayfs/inode.c, ovl_get_inode).
const originXattr = "trusted.overlay.origin"

// maxSkippedNames bounds Stats.SkippedXattrs.
const maxSkippedNames = 64

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
func (w *writer) settle(fd int, e *entry) error {
	chown := !w.create.known || e.uid != w.create.uid || e.gid != w.create.gid
	if chown {
		if err := unix.Fchown(fd, int(e.uid), int(e.gid)); err != nil {
			return fmt.Errorf("setting owner %d:%d: %w", e.uid, e.gid, err)
		}
	}
	if !w.create.known || e.mode&^w.create.mask != 0 {
		if err := unix.Fchmod(fd, e.mode); err != nil {
			return fmt.Errorf("setting mode %#o: %w", e.mode, err)
		}
	}
	for _, x := range e.xattrs {
		if foreign(x.name) {
			continue
		}
		if err := w.xattrResult(x.name, unix.Fsetxattr(fd, x.name, x.value, 0)); err != nil {
			return err
		}
	}
	if err := futimens(fd, e.mtime); err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return nil
}

// settleAt does the same for what cannot be opened: symbolic links, devices, FIFOs. up/base was just made here.
func (w *writer) settleAt(up int, base string, e *entry) error {
	if !w.create.known || e.uid != w.create.uid || e.gid != w.create.gid {
		if err := unix.Fchownat(up, base, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return fmt.Errorf("setting owner %d:%d: %w", e.uid, e.gid, err)
		}
	}
	// A symbolic link has no mode. For the others plain fchmodat is right on every kernel: AT_SYMLINK_NOFOLLOW came
	// with Linux 6.6, and base is not a symbolic link.
	if e.kind != typeSymlink && (!w.create.known || e.mode&^w.create.mask != 0) {
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
		if err := w.xattrResult(x.name, err); err != nil {
			return err
		}
	}
	times := []unix.Timespec{e.mtime, e.mtime}
	if err := unix.UtimesNanoAt(up, base, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return nil
}

// foreign attributes are not the image's to set: those of overlayfs would make a layer redirect into others, labels
// of SELinux and NFS belong to the machine that made the layer.
func foreign(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") ||
		name == "security.selinux" || name == "system.nfs4_acl"
}

// xattrResult lets an attribute go that the filesystem cannot hold, unless the image would then run otherwise or
// let in more.
func (w *writer) xattrResult(name string, err error) error {
	if err == nil {
		return nil
	}
	needed := name == "security.capability" || strings.HasPrefix(name, "system.posix_acl_")
	if !errors.Is(err, unix.EOPNOTSUPP) || needed {
		return fmt.Errorf("setting attribute %s: %w", quote(name), err)
	}
	if w.stats.SkippedXattrs == nil {
		w.stats.SkippedXattrs = map[string]int{}
	}
	if len(w.stats.SkippedXattrs) < maxSkippedNames || w.stats.SkippedXattrs[name] > 0 {
		w.stats.SkippedXattrs[name]++
	}
	return nil
}

// describe keeps a directory's attributes for finish.
func (w *writer) describe(n *node, e *entry) error {
	n.described = true
	n.mode, n.uid, n.gid, n.mtime = e.mode, e.uid, e.gid, e.mtime
	for _, x := range n.xattrs {
		w.tree.spare += int64(len(x.name) + len(x.value))
	}
	n.xattrs = nil
	for _, x := range e.xattrs {
		if err := w.tree.charge(len(x.name) + len(x.value)); err != nil {
			return err
		}
		n.xattrs = append(n.xattrs, xattr{x.name, bytes.Clone(x.value)})
	}
	return nil
}

// finish sets the attributes of n and of all directories below it, those first.
func (w *writer) finish(n *node) error {
	if err := w.ctx.Err(); err != nil {
		return err
	}
	for c := n.first; c != nil; c = c.next {
		if err := w.finish(c); err != nil {
			return err
		}
	}
	if !n.described {
		path := n.path()
		if err := w.tree.charge(len(path)); err != nil {
			return err
		}
		w.stats.ImpliedDirs = append(w.stats.ImpliedDirs, path)
		n.mode = 0o755
	}
	fd, err := w.tree.fd(n)
	if err == nil && n.opaque && n != w.tree.root {
		if err = unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			err = fmt.Errorf("marking opaque: %w", err)
		}
	}
	if err == nil && n.hides && n != w.tree.root {
		if err = unix.Fsetxattr(fd, originXattr, nil, 0); err != nil {
			err = fmt.Errorf("marking whiteouts: %w", err)
		}
	}
	if err == nil {
		err = w.settleDir(fd, n)
	}
	if err != nil {
		return fmt.Errorf("finishing directory %s: %w", quote(n.path()), err)
	}
	w.tree.shut(n)
	return nil
}

// settleDir is settle for a directory, which was made 0700 or, the root, by the caller.
func (w *writer) settleDir(fd int, n *node) error {
	if n == w.tree.root || !w.create.known || n.uid != w.create.uid || n.gid != w.create.gid {
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
		if err := w.xattrResult(x.name, unix.Fsetxattr(fd, x.name, x.value, 0)); err != nil {
			return err
		}
	}
	if err := futimens(fd, n.mtime); err != nil {
		return fmt.Errorf("setting time: %w", err)
	}
	return nil
}
