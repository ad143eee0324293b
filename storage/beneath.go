// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrOutside is wrapped when a mount point does not lie where mount points may.
var ErrOutside = errors.New("the mount point lies in none of the configured directories")

// errHostServed is wrapped when a mount point lies on virtiofs or 9p. The host serves those and takes a mount off again by
// saying that its directory is no more; what a container then writes there goes to the host.
var errHostServed = errors.New("the mount point lies on a file system that the host serves")

// openBeneath opens the directory in which a mount point lies, taking each step of its path below the one of dirs that it
// is in: with enter what is missing is made, with step it is an error. No symbolic link below that is followed: a container
// may have made one.
func openBeneath(dirs []string, point string, take func(dir int, name string) (int, error)) (*os.File, error) {
	for _, dir := range dirs {
		rel, ok := strings.CutPrefix(point, dir+"/")
		if !ok {
			continue
		}
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", dir, err)
		}
		parts := strings.Split(rel, "/")
		for _, part := range parts[:len(parts)-1] {
			next, err := take(fd, part)
			unix.Close(fd)
			if err != nil {
				return nil, fmt.Errorf("going to the mount point: %w", err)
			}
			fd = next
		}
		return os.NewFile(uintptr(fd), filepath.Dir(point)), nil
	}
	return nil, ErrOutside
}

// enter makes a directory unless it is there, and opens it.
func enter(dir int, name string) (int, error) {
	if err := guestServed(dir); err != nil {
		return -1, err
	}
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return step(dir, name)
}

func guestServed(dir int) error {
	var st unix.Statfs_t
	if err := unix.Fstatfs(dir, &st); err != nil {
		return fmt.Errorf("asking for the file system of the mount point: %w", err)
	}
	if st.Type == unix.FUSE_SUPER_MAGIC || st.Type == unix.V9FS_MAGIC {
		return errHostServed
	}
	return nil
}

// step opens a directory.
func step(dir int, name string) (int, error) {
	return unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// place mounts the ext4 on o's mapping on o's mount point, or makes that a link to the mapping.
func (o *Mounted) place(dirs []string, fileSystem bool) error {
	parent, err := openBeneath(dirs, o.Point, enter)
	if err != nil {
		return err
	}
	defer parent.Close()
	name := filepath.Base(o.Point)
	if !fileSystem {
		err := guestServed(int(parent.Fd()))
		if err == nil {
			err = unix.Symlinkat(o.Device, int(parent.Fd()), name)
		}
		if err != nil {
			return fmt.Errorf("making the link: %w", err)
		}
		o.closers = append(o.closers, o.beneath(dirs, func(parent int) error { return unix.Unlinkat(parent, name, 0) }))
		return nil
	}
	fd, err := enter(int(parent.Fd()), name)
	if err != nil {
		return fmt.Errorf("making the mount point: %w", err)
	}
	defer unix.Close(fd)
	if err := guestServed(fd); err != nil {
		return err
	}
	return o.mountOn(fmt.Sprintf("/proc/self/fd/%d", fd), o.beneath(dirs, func(parent int) error {
		return unmounter(fmt.Sprintf("/proc/self/fd/%d/%s", parent, name))()
	}))
}

// beneath undoes something in the directory where the mount point lies now, by the same rules as it was found: the path
// is a container's to change meanwhile. What is gone is undone.
func (o *Mounted) beneath(dirs []string, undo func(parent int) error) func() error {
	return func() error {
		parent, err := openBeneath(dirs, o.Point, step)
		if err == nil {
			err = errors.Join(undo(int(parent.Fd())), parent.Close())
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("undoing %s: %w", o.Point, err)
		}
		return nil
	}
}

// gone reports that somebody else has unmounted what was mounted, or that its device is no more.
func (o *Mounted) gone() bool {
	var point, device unix.Stat_t
	switch {
	case unix.Lstat(o.Point, &point) != nil:
		return true
	case point.Mode&unix.S_IFMT != unix.S_IFDIR: // a link
		return false
	}
	return unix.Stat(o.Device, &device) != nil || point.Dev != device.Rdev
}
