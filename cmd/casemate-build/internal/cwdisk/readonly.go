// SPDX-License-Identifier: Apache-2.0

package cwdisk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/rootfs/ext4"
)

const (
	capabilityXattr = "security.capability"
	// labelXattr is what the building host's own policy says of a file; a guest has none.
	labelXattr = "security.selinux"
	maxXattrs  = 64 << 10
	configPerm = 0o600
)

// place tells apart the names of one file.
type place struct{ device, inode uint64 }

// tree copies a directory into a file system.
type tree struct {
	root string
	to   *ext4.Writer
	seen map[place]string // of files with several names, the first
}

// makeReadOnly makes the file system that a hash tree covers, which is the same for the same files, and returns its size.
func makeReadOnly(ctx context.Context, o Options, image *os.File) (int64, error) {
	raw, added, err := o.config()
	if err != nil {
		return 0, err
	}
	root, err := filepath.EvalSymlinks(o.Root)
	if err != nil {
		return 0, err
	}
	t := &tree{root: root, to: ext4.NewWriter(image), seen: map[place]string{}}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = t.add(path)
		}
		return err
	})
	if err == nil && added {
		err = t.to.File("/"+ConfigName, configPerm, int64(len(raw)), bytes.NewReader(raw))
	}
	if err != nil {
		return 0, fmt.Errorf("copying %s: %w", o.Root, err)
	}
	size, err := t.to.Close()
	if err != nil {
		return 0, err
	}
	return size, image.Truncate(size)
}

// add copies one file, whatever it is. As mkfs.ext4 does it, sockets are left out, since nobody listens, and of the
// directory itself owner, mode and time: they are those of a place to work in.
func (t *tree) add(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	rel, err := filepath.Rel(t.root, path)
	if err != nil {
		return err
	}
	name, kind := filepath.Join("/", rel), st.Mode&unix.S_IFMT
	if name == "/" && kind == unix.S_IFDIR || kind == unix.S_IFSOCK {
		return nil
	}
	if first, ok := t.seen[place{st.Dev, st.Ino}]; ok && kind != unix.S_IFDIR {
		return t.to.Link(name, first)
	}
	if st.Nlink > 1 {
		t.seen[place{st.Dev, st.Ino}] = name
	}
	if err := t.file(path, name, kind, &st); err != nil {
		return err
	}
	capability, err := xattrs(path)
	if err != nil {
		return err
	}
	return t.to.Set(name, ext4.Attributes{Perm: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Modified: st.Mtim.Sec, Capability: capability})
}

func (t *tree) file(path, name string, kind uint32, st *unix.Stat_t) error {
	switch kind {
	case unix.S_IFDIR:
		if name == "/lost+found" { // every file system has one
			return nil
		}
		return t.to.Dir(name, 0)
	case unix.S_IFREG:
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			return err
		}
		return errors.Join(t.to.File(name, 0, st.Size, f), f.Close())
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return t.to.Symlink(name, target)
	case unix.S_IFCHR:
		return t.to.CharDevice(name, 0, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFBLK:
		return t.to.BlockDevice(name, 0, unix.Major(st.Rdev), unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		return t.to.FIFO(name, 0)
	}
	return fmt.Errorf("%s: a file of type %o", path, kind)
}

// xattrs returns a file's capability. Attributes that would be lost are an error, but for the host's labels.
func xattrs(path string) (capability []byte, err error) {
	list := make([]byte, maxXattrs)
	n, err := unix.Llistxattr(path, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the extended attributes of %s: %w", path, err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(list[:n]), "\x00"), "\x00") {
		switch name {
		case "", labelXattr:
		case capabilityXattr:
			value := make([]byte, maxXattrs)
			n, err := unix.Lgetxattr(path, name, value)
			if err != nil {
				return nil, fmt.Errorf("reading %s of %s: %w", name, path, err)
			}
			capability = value[:n]
		default:
			return nil, fmt.Errorf("%s has the extended attribute %s: only %s is kept", path, name, capabilityXattr)
		}
	}
	return capability, nil
}
