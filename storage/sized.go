// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	maxSized = 1 << 42 // bytes: the place of a size that is none
	// sizedBlock is ext4's, in bytes.
	sizedBlock = 4096
	// loopAttempts is how often a free loop device may turn out taken.
	loopAttempts = 1024
)

// MountSized mounts on point a new ext4 with room for size bytes of files and not a block more: a write beyond it gets
// ENOSPC. f makes the file system, with an inode of 256 bytes for each 16 KiB at the most, in a file without a name on
// dir's, which has the room set aside first: if it does not have it, that is the error, and nobody finds out later.
// Unmounting point gives all of it back; on error nothing stays.
//
// It is a file and a loop device, since the kernel reports a project quota of ext4 as EDQUOT, which is another error
// than a full disk's.
func MountSized(dir string, size int64, f Formatter, point string) error {
	if err := mountSized(dir, size, f, point); err != nil {
		return fmt.Errorf("making a file system for %d bytes: %w", size, err)
	}
	return nil
}

func mountSized(dir string, size int64, f Formatter, point string) (err error) {
	if size <= 0 || size > maxSized {
		return fmt.Errorf("want 1 to %d bytes", int64(maxSized))
	}
	size = (size + sizedBlock - 1) / sizedBlock * sizedBlock
	loop, err := sizedLoop(dir, size, f)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, loop.Close()) }() // behind the last mount the device frees itself
	hidden, err := os.MkdirTemp(dir, ".sized-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(hidden)) }()
	if err := unix.Mount(loop.Name(), hidden, "ext4", mountFlags, mountOptions); err != nil {
		return fmt.Errorf("mounting %s: %w", loop.Name(), err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(hidden, unix.UMOUNT_NOFOLLOW)) }()
	files := filepath.Join(hidden, "files")
	if err := os.Mkdir(files, 0o755); err != nil { //nolint:gosec // the caller decides
		return err
	}
	if err := fillUp(hidden, size); err != nil {
		return err
	}
	if err := unix.Mount(files, point, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting: %w", err)
	}
	return nil
}

// sizedLoop makes the file system and returns its loop device.
func sizedLoop(dir string, size int64, f Formatter) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a file: %w", err)
	}
	image := os.NewFile(uintptr(fd), dir+"/image")
	defer image.Close()
	whole := sizedImage(size)
	if err := unix.Fallocate(fd, 0, 0, whole); err != nil {
		return nil, fmt.Errorf("setting %d bytes aside: %w", whole, err)
	}
	if err := f.Format(overZeros{image}, whole); err != nil {
		return nil, fmt.Errorf("formatting: %w", err)
	}
	return attach(image)
}

// sizedImage is the size of a file system that has more room than size: behind inodes (a 64th), bitmaps, and what ext4
// keeps for itself (a 50th, 16 MiB at most). What is too much is filled up.
func sizedImage(size int64) int64 {
	whole := size + size/60 + size/2048 + min(size/48, 16<<20) + 20<<20
	return (whole + sizedBlock - 1) / sizedBlock * sizedBlock
}

// overZeros writes to what reads as zeros, and spares itself the zeros.
type overZeros struct{ to io.WriterAt }

func (z overZeros) WriteAt(p []byte, at int64) (int, error) {
	for done := 0; done < len(p); {
		n := min(sizedBlock-int((at+int64(done))%sizedBlock), len(p)-done)
		if part := p[done : done+n]; len(bytes.TrimLeft(part, "\x00")) > 0 {
			if m, err := z.to.WriteAt(part, at+int64(done)); err != nil {
				return done + m, err
			}
		}
		done += n
	}
	return len(p), nil
}

// fillUp leaves size bytes free on a new file system by giving the rest to a file outside of the volume.
func fillUp(dir string, size int64) error {
	ballast, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer ballast.Close()
	var length int64
	// A large file takes blocks for its own map: those are given back in a second round.
	for range 4 {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return fmt.Errorf("asking for free room: %w", err)
		}
		over := int64(st.Bavail)*st.Bsize - size //nolint:gosec // far below
		if length += over; length < 0 {
			return fmt.Errorf("the file system has %d bytes too few", -length)
		}
		switch {
		case over == 0:
			return nil
		case over > 0:
			err = unix.Fallocate(int(ballast.Fd()), 0, 0, length)
		default:
			err = ballast.Truncate(length)
		}
		if err != nil {
			return fmt.Errorf("filling up: %w", err)
		}
	}
	return nil
}

// attach makes a file a loop device, which frees itself when the last that has it open, a mount or the file returned,
// lets go.
func attach(image *os.File) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attaching a loop device: %w", err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(image.Fd()), Size: sizedBlock}
	config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("finding a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, fmt.Errorf("opening a loop device: %w", err)
		}
		if err = unix.IoctlLoopConfigure(int(device.Fd()), &config); err == nil {
			return device, nil
		}
		if err = errors.Join(err, device.Close()); !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attaching loop device %d: %w", n, err)
		}
	}
	return nil, fmt.Errorf("attaching a loop device: %d were taken meanwhile", loopAttempts)
}
