// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// mountFlags: blocks are authenticated, but a tenant's data is still no place for devices or set-uid programs.
const mountFlags = unix.MS_NOATIME | unix.MS_NODEV | unix.MS_NOSUID

// mountOptions make a file system read-only once a block of its own structures does not read: what the host has changed
// below must not lead to writes that are based on it.
const mountOptions = "errors=remount-ro"

// Mounted is what was mapped and mounted on a path. Its steps are undone from the last to the first.
type Mounted struct {
	Point   string // absolute
	Device  string // the mapping
	Size    int64  // of the mapping, in bytes
	request SecureMount
	closers []func() error
	flags   uintptr // mountFlags if 0
}

// mount mounts the ext4 on a mapping, which o remembers.
func (o *Mounted) mount() error {
	if err := os.MkdirAll(o.Point, 0o755); err != nil { //nolint:gosec // the mounted root decides
		return err
	}
	return o.mountOn(o.Point, unmounter(o.Point))
}

// mountOn mounts on a path that leads to the mount point; undo unmounts it.
func (o *Mounted) mountOn(path string, undo func() error) error {
	flags := o.flags
	if flags == 0 {
		flags = mountFlags
	}
	if err := unix.Mount(o.Device, path, "ext4", flags, mountOptions); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	o.closers = append(o.closers, undo)
	return nil
}

func unmounter(point string) func() error {
	return func() error {
		// EINVAL: whoever asked for the mount has undone it already.
		if err := unix.Unmount(point, unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", point, err)
		}
		return nil
	}
}

// Bind makes a new directory of the file system, for root alone unless perm says more, and shows it at target too,
// which is made if need be.
func (o *Mounted) Bind(name, target string, perm os.FileMode) error {
	dir := filepath.Join(o.Point, name)
	if err := errors.Join(os.Mkdir(dir, perm), os.MkdirAll(target, perm)); err != nil {
		return fmt.Errorf("placing %s on %s: %w", target, o.Point, err)
	}
	if err := unix.Mount(dir, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("placing %s on %s: %w", target, o.Point, err)
	}
	o.closers = append(o.closers, unmounter(target))
	return nil
}

// Close undoes it all. It stops at the first step that fails, since what comes after it is in use: the error then wraps
// unix.EBUSY, and Close may be called again. With ErrNotCounted everything is undone.
func (o *Mounted) Close() error {
	var uncounted error
	for len(o.closers) > 0 {
		last := len(o.closers) - 1
		switch err := o.closers[last](); {
		case errors.Is(err, ErrNotCounted):
			uncounted = err
		case err != nil:
			return err
		}
		o.closers = o.closers[:last]
	}
	return uncounted
}

// MountVolume opens a volume, as Volumes.Open does, and mounts the ext4 on it on point. On error nothing stays. The
// caller closes.
func MountVolume(ctx context.Context, v Volumes, c VolumeConfig, device, point string) (*Mounted, error) {
	return mountVolume(ctx, v, c, device, point, mountFlags)
}

// MountRoot is MountVolume for the root file system of a container, whose set-uid programs are its own affair.
func MountRoot(ctx context.Context, v Volumes, c VolumeConfig, device, point string) (*Mounted, error) {
	return mountVolume(ctx, v, c, device, point, mountFlags&^unix.MS_NOSUID)
}

func mountVolume(ctx context.Context, v Volumes, c VolumeConfig, device, point string, flags uintptr) (*Mounted, error) {
	o, err := v.Open(ctx, c, device)
	if err != nil {
		return nil, err
	}
	m := &Mounted{Point: point, Device: o.Path, Size: o.Size, closers: []func() error{o.Close}, flags: flags}
	if err := m.mount(); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting volume %s on %s: %w", c.Name, point, err), m.Close())
	}
	return m, nil
}

// MountScratch opens scratch, lets f make an ext4 on it and mounts that on point. On error nothing stays. The caller
// closes; nothing on it survives that.
func MountScratch(ctx context.Context, m Mapper, c ScratchConfig, f Formatter, point string) (*Mounted, error) {
	s, err := OpenScratch(ctx, m, c)
	if err != nil {
		return nil, err
	}
	o := &Mounted{Point: point, Device: s.Path, Size: s.Size, closers: []func() error{s.Close}}
	if err = s.Format(ctx, f); err == nil {
		err = o.mount()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mounting scratch on %s: %w", point, err), o.Close())
	}
	return o, nil
}
