// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// openat is openat(2) with O_CLOEXEC, taken up again after a signal.
func openat(dir int, name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, mode)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// writeAll is write(2) until all is written.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n == 0 && err == nil {
			return io.ErrShortWrite
		}
		b = b[max(n, 0):]
	}
	return nil
}

func lstatat(dir int, name string) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return nil, err
	}
	return &st, nil
}

func readlinkat(dir int, name string) (string, error) {
	var b [maxPath]byte
	n, err := unix.Readlinkat(dir, name, b[:])
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// futimens sets both times of an open file. The kernel's utimensat takes a null path for it, which package unix
// cannot express.
func futimens(fd int, t unix.Timespec) error {
	times := [2]unix.Timespec{t, t}
	_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
