// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"errors"
	"fmt"
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
	if err := w.tree.sink.finish(n); err != nil {
		return fmt.Errorf("finishing directory %s: %w", quote(n.path()), err)
	}
	w.tree.sink.forget(n)
	return nil
}
