// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const socketMode = 0o600

// Listen opens the address of a key provider: "unix:PATH" or "unix:///PATH" as
// ListenUnix does, an address of 127.0.0.0/8 or [::1] with a port as
// ListenLoopback does. Anything else is refused: the protocol has neither
// encryption nor passwords.
func Listen(ctx context.Context, address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			path = rest
		}
		return ListenUnix(ctx, path)
	}
	return ListenLoopback(ctx, address)
}

// ListenUnix creates a socket at path that only this process's user and root
// can use: its mode is 0600 from the moment it exists, and every peer's user id
// is checked besides, since a socket file can be handed on. A socket that
// nobody answers on is replaced; anything else at path is an error. Closing the
// listener removes the socket.
func ListenUnix(ctx context.Context, path string) (net.Listener, error) {
	if path == "" || path[0] == '@' || path[0] == 0 {
		return nil, fmt.Errorf("listening on unix socket %q: want a path in the file system", path)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, fmt.Errorf("listening on unix socket %s: %w", path, err)
	}
	// Linux gives the file the mode of the socket at bind (unix(7)), so there is
	// no moment with a wider one, and no process-wide umask is touched.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var modeErr error
		err := c.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), socketMode) })
		return errors.Join(err, modeErr)
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listening on unix socket: %w", err)
	}
	return &peerListener{Listener: l, uid: uint32(os.Geteuid())}, nil
}

// ListenLoopback listens on a TCP port of the loopback interface. TCP has no
// peer credentials: every local process, containers that share the network
// namespace included, reaches it. A guest with workloads serves a unix socket
// instead.
func ListenLoopback(ctx context.Context, address string) (net.Listener, error) {
	a, err := netip.ParseAddrPort(address)
	if err != nil || !a.Addr().IsLoopback() || a.Addr().Zone() != "" {
		return nil, fmt.Errorf("listening on %q: want unix:PATH, 127.0.0.1:PORT or [::1]:PORT", address)
	}
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", a.String())
	if err != nil {
		return nil, fmt.Errorf("listening on loopback: %w", err)
	}
	return l, nil
}

// removeStale removes a socket file that a dead process left at path.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return errors.New("something that is no socket is in its place")
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(errors.New("another process listens on it"), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// peerListener passes on connections of its user and of root only.
type peerListener struct {
	net.Listener
	uid uint32
}

// Accept closes connections of others and waits for the next one.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(conn)
		if err == nil && (uid == l.uid || uid == 0) {
			return conn, nil
		}
		// The peer sees its connection closed and is told no more.
		_ = conn.Close()
	}
}

// peerUID returns the user id that the kernel recorded when the peer connected.
func peerUID(conn net.Conn) (uint32, error) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return 0, fmt.Errorf("reading peer credentials: %T has no descriptor", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("reading peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, credErr); err != nil {
		return 0, fmt.Errorf("reading peer credentials: %w", err)
	}
	return cred.Uid, nil
}
