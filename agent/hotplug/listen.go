// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// kernelGroup is the multicast group to which the kernel itself sends; programs use another.
	kernelGroup = 1
	// recheck is how long nothing may be announced before it is looked for all the same: the host can announce so much
	// that the socket is full.
	recheck = time.Second
)

// source says when it is worth looking.
type source interface {
	// wait returns when a device of the subsystem may have come, or after recheck. Its error is ctx's or the socket's.
	wait(ctx context.Context, subsystem string) error
	close() error
}

// listener is the kernel's announcements from the moment it was opened. It is for one goroutine.
type listener struct {
	file *os.File
	buf  []byte
}

// listen opens the socket in the network namespace of the caller's thread, which has to be the guest's own.
func listen() (*listener, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("listening for devices: %w", os.NewSyscallError("socket", err))
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: kernelGroup}); err != nil {
		return nil, errors.Join(fmt.Errorf("listening for devices: %w", os.NewSyscallError("bind", err)), unix.Close(fd))
	}
	return &listener{file: os.NewFile(uintptr(fd), "uevents"), buf: make([]byte, maxEvent+1)}, nil
}

func (l *listener) close() error { return l.file.Close() }

// wait implements source.
func (l *listener) wait(ctx context.Context, subsystem string) error {
	if err := l.file.SetReadDeadline(time.Now().Add(recheck)); err != nil {
		return fmt.Errorf("listening for devices: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		err := l.next(subsystem)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ENOBUFS), err == nil:
			return nil
		case !errors.Is(err, errEvent):
			return fmt.Errorf("listening for devices: %w", err)
		}
	}
}

// next reads announcements until one matters. Those of others and of other things are errEvent.
func (l *listener) next(subsystem string) error {
	conn, err := l.file.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var from unix.Sockaddr
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		n, _, _, from, failed = unix.Recvmsg(int(fd), l.buf, nil, 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if peer, ok := from.(*unix.SockaddrNetlink); !ok || peer.Pid != 0 || peer.Groups != 1<<(kernelGroup-1) {
		return errEvent // a program's
	}
	e, err := parseEvent(l.buf[:n])
	if err != nil {
		return err
	}
	if !e.announces(subsystem) {
		return errEvent
	}
	return nil
}
