// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
)

// make creates the directory, without following a link below the pod's, and mounts on it: memory, the directory itself,
// a file system of the size that was asked for, or one on an encrypted disk.
func (s *Service) make(ctx context.Context, v *volume) error {
	o := v.options
	fd, err := makeBeneath(s.cfg.Dir, strings.TrimPrefix(o.path, s.cfg.Dir+"/"))
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EEXIST) {
		return fail(codes.FailedPrecondition, "volume %s contradicts what is there", quoted(o.path))
	}
	if err != nil {
		return fmt.Errorf("making volume %s: %w", o.path, err)
	}
	defer unix.Close(fd)
	switch {
	case o.disk != disk{}:
		v.close, err = s.mountEncrypted(ctx, o)
	case o.driver == driverEphemeral:
		err = unix.Mount("tmpfs", fmt.Sprintf("/proc/self/fd/%d", fd), "tmpfs", o.flags(), o.data())
	case o.size > 0:
		err = o.mountSized(fd, s.cfg.Sized)
	default:
		err = o.bindSelf(fd)
	}
	if err != nil {
		_ = unmount(o.path) // the last step may have mounted it or not
		return errors.Join(fmt.Errorf("making volume %s: %w", o.path, err), os.Remove(o.path))
	}
	return nil
}

// mountEncrypted waits for the disk, which the host may have just plugged in, and gives up all of it.
func (s *Service) mountEncrypted(ctx context.Context, o volumeOptions) (func() error, error) {
	node, err := s.cfg.Devices.Wait(ctx, o.disk.driver, o.disk.address)
	if err != nil {
		return nil, &Failure{Code: codes.NotFound, Phrase: fmt.Sprintf("volume %s: there is no disk at %s", quoted(o.path), o.disk.address), Err: err}
	}
	undo, err := s.cfg.Encrypted(ctx, node, o.path)
	if err != nil {
		return nil, &Failure{Code: codes.FailedPrecondition, Phrase: fmt.Sprintf("volume %s could not be made", quoted(o.path)), Err: err}
	}
	if err = o.own(o.path); err == nil {
		err = unix.Mount("", o.path, "", unix.MS_BIND|unix.MS_REMOUNT|o.flags(), "")
	}
	if err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// bindSelf gives the directory its owner and mode and mounts it on itself, so that what lies on it is held to the
// volume's mount flags and no rename leads out of it.
func (o volumeOptions) bindSelf(fd int) error {
	here := fmt.Sprintf("/proc/self/fd/%d", fd)
	if err := o.own(here); err != nil {
		return err
	}
	if err := unix.Mount(here, here, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return unix.Mount("", o.path, "", unix.MS_BIND|unix.MS_REMOUNT|o.flags(), "")
}

// mountSized is bindSelf for a directory with a size.
func (o volumeOptions) mountSized(fd int, sized func(size int64, point string) error) error {
	err := sized(o.size, fmt.Sprintf("/proc/self/fd/%d", fd))
	if errors.Is(err, unix.ENOSPC) {
		return &Failure{Code: codes.ResourceExhausted, Phrase: fmt.Sprintf("volume %s: there is no room for its size", quoted(o.path)), Err: err}
	}
	if err == nil {
		err = o.own(o.path)
	}
	if err != nil {
		return err
	}
	return unix.Mount("", o.path, "", unix.MS_BIND|unix.MS_REMOUNT|o.flags(), "")
}

// own gives the volume's directory its owner and mode.
func (o volumeOptions) own(dir string) error {
	mode := o.mode
	if o.gid >= 0 {
		if err := os.Chown(dir, 0, o.gid); err != nil {
			return err
		}
		mode |= unix.S_ISGID
	}
	return unix.Chmod(dir, mode)
}

func (o volumeOptions) flags() uintptr {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if o.noexec {
		flags |= unix.MS_NOEXEC
	}
	if o.noatime {
		flags |= unix.MS_NOATIME
	}
	return flags
}

func (o volumeOptions) data() string {
	mode := o.mode
	if o.gid >= 0 {
		mode |= unix.S_ISGID
	}
	data := fmt.Sprintf("mode=%o", mode)
	if o.gid >= 0 {
		data += fmt.Sprintf(",gid=%d", o.gid)
	}
	if o.size > 0 {
		data += fmt.Sprintf(",size=%d", o.size)
	}
	return data
}

// makeBeneath makes rel below root, the last directory new, and opens it.
func makeBeneath(root, rel string) (int, error) {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		err := unix.Mkdirat(fd, part, 0o755)
		if err != nil && (i == len(parts)-1 || !errors.Is(err, unix.EEXIST)) {
			unix.Close(fd)
			return -1, err
		}
		next, err := beneath(fd, part, unix.O_PATH|unix.O_DIRECTORY)
		unix.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}
