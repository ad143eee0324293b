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

// openBeneath opens the directory in which a mount point lies, making what is missing of its path below the one of dirs
// that it is in. No symbolic link below that is followed: a container may have made one.
func openBeneath(dirs []string, point string) (*os.File, error) {
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
			next, err := enter(fd, part)
			unix.Close(fd)
			if err != nil {
				return nil, fmt.Errorf("making the mount point: %w", err)
			}
			fd = next
		}
		return os.NewFile(uintptr(fd), filepath.Dir(point)), nil
	}
	return nil, ErrOutside
}

// enter makes a directory unless it is there, and opens it.
func enter(dir int, name string) (int, error) {
	if err := unix.Mkdirat(dir, name, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return unix.Openat2(dir, name, &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
}

// place mounts the ext4 on o's mapping on o's mount point, or makes that a link to the mapping.
func (o *Mounted) place(dirs []string, fileSystem bool) error {
	parent, err := openBeneath(dirs, o.Point)
	if err != nil {
		return err
	}
	defer parent.Close()
	name := filepath.Base(o.Point)
	if !fileSystem {
		if err := unix.Symlinkat(o.Device, int(parent.Fd()), name); err != nil {
			return fmt.Errorf("making the link: %w", err)
		}
		o.closers = append(o.closers, func() error {
			if err := os.Remove(o.Point); !errors.Is(err, os.ErrNotExist) {
				return err
			}
			return nil
		})
		return nil
	}
	fd, err := enter(int(parent.Fd()), name)
	if err != nil {
		return fmt.Errorf("making the mount point: %w", err)
	}
	defer unix.Close(fd)
	return o.mountOn(fmt.Sprintf("/proc/self/fd/%d", fd))
}

// gone reports that somebody else has unmounted what was mounted.
func (o *Mounted) gone() bool {
	var point, device unix.Stat_t
	if unix.Lstat(o.Point, &point) != nil {
		return true
	}
	return point.Mode&unix.S_IFMT == unix.S_IFDIR && unix.Stat(o.Device, &device) == nil && point.Dev != device.Rdev
}
