// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/unpack/erofs"
)

// finish makes the inode of a directory, with the entries below it.
func (m *image) finish(n *node) error {
	i := &inode{
		Mode: unix.S_IFDIR | n.mode, UID: n.uid, GID: n.gid, Sec: n.mtime.Sec, Nsec: uint32(n.mtime.Nsec),
		Extra: &erofs.Extra{},
	}
	if n != m.w.tree.root {
		if n.opaque {
			mark(i, opaqueXattr, []byte("y"))
		}
		if n.hides {
			mark(i, originXattr, nil)
		}
	}
	if err := m.attributes(i, n.xattrs); err != nil {
		return err
	}
	entries := make([]erofs.Entry, 0, len(n.files))
	for name, file := range n.files {
		entries = append(entries, erofs.Entry{Name: name, Inode: file})
	}
	for c := n.first; c != nil; c = c.next {
		entries = append(entries, erofs.Entry{Name: c.name, Inode: c.made})
	}
	i.Extra.Entries = entries
	n.made, n.files = i, nil
	return nil
}

// mark sets an attribute of overlayfs, whose namespace the format has.
func mark(i *inode, name string, value []byte) {
	space, rest, _ := erofs.Namespace(name)
	i.Extra.Xattrs = append(i.Extra.Xattrs, erofs.Xattr{Space: space, Name: rest, Value: value})
}

// attributes sets what the archive says, as setxattr(2) would on a filesystem with the format's namespaces: what the
// kernel refuses to set is refused here.
func (m *image) attributes(i *inode, list []xattr) error {
	for _, x := range list {
		if foreign(x.name) {
			continue
		}
		keep, err := i.Mode, error(nil)
		space, rest, ok := erofs.Namespace(x.name)
		store := true
		switch {
		case !ok, space == 1 && !hasUserXattrs(i):
			err = unix.EOPNOTSUPP
		case space != 2 && space != 3 && rest == "":
			err = unix.EINVAL
		case len(x.value) > erofs.MaxXattrValue:
			return fmt.Errorf("%w: attribute %s of %d bytes, at most %d", ErrLimit, quote(x.name), len(x.value), erofs.MaxXattrValue)
		case x.name == "security.capability":
			err = checkCapability(x.value)
		case space == 2 || space == 3:
			keep, store, err = applyACL(i.Mode, space == 3, x.value)
		}
		if err != nil || !store {
			if err := m.w.xattrResult(x.name, err); err != nil {
				return err
			}
			i.Mode = keep
			continue
		}
		i.Mode = keep
		if i.Extra == nil {
			i.Extra = &erofs.Extra{}
		}
		i.Extra.Xattrs = append(i.Extra.Xattrs, erofs.Xattr{Space: space, Name: rest, Value: bytes.Clone(x.value)})
	}
	if i.Extra != nil {
		if n := erofs.XattrBytes(i.Extra.Xattrs); n > erofs.MaxXattrBytes {
			return fmt.Errorf("%w: attributes of %d bytes, at most %d", ErrLimit, n, erofs.MaxXattrBytes)
		}
	}
	return nil
}

// hasUserXattrs: xattr(7) has user.* for files and directories only.
func hasUserXattrs(i *inode) bool {
	kind := i.Mode & unix.S_IFMT
	return kind == unix.S_IFREG || kind == unix.S_IFDIR
}

// applyACL does what setting an ACL does to a file of that mode: the permission bits follow the ACL, and one that says
// no more than they is not stored. A default ACL is for directories.
func applyACL(mode uint32, isDefault bool, value []byte) (after uint32, store bool, err error) {
	if mode&unix.S_IFMT == unix.S_IFLNK {
		return mode, false, unix.EOPNOTSUPP
	}
	perm, extended, empty, err := checkACL(value)
	switch {
	case err != nil, empty:
		return mode, false, err
	case isDefault && mode&unix.S_IFMT != unix.S_IFDIR:
		return mode, false, unix.EACCES
	case isDefault:
		return mode, true, nil
	}
	return mode&^0o777 | perm, extended, nil
}
