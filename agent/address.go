// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// DefaultAddress is where a sandbox runtime looks for the agent: any context id, port 1024.
const DefaultAddress = "vsock://-1:1024"

// Address is a parsed listen address; its zero value is not one. The forms are "vsock://CID:PORT", where CID -1 is
// any, and "unix:///PATH".
type Address struct {
	path string // of a unix socket; empty for vsock
	cid  uint32
	port uint32
}

// ParseAddress reads a listen address. Abstract unix sockets are refused: no file mode guards them, and every
// container that shares the guest's network can reach them.
func ParseAddress(s string) (Address, error) {
	scheme, rest, _ := strings.Cut(s, "://")
	switch scheme {
	case "unix":
		if !strings.HasPrefix(rest, "/") || strings.ContainsRune(rest, 0) {
			return Address{}, fmt.Errorf("parsing listen address %q: a unix socket needs an absolute path", s)
		}
		return Address{path: rest}, nil
	case "vsock":
		host, port, ok := strings.Cut(rest, ":")
		if !ok {
			return Address{}, fmt.Errorf("parsing listen address %q: no port", s)
		}
		cid := uint64(unix.VMADDR_CID_ANY)
		if host != "-1" {
			var err error
			if cid, err = strconv.ParseUint(host, 10, 32); err != nil {
				return Address{}, fmt.Errorf("parsing listen address %q: context id: %w", s, err)
			}
		}
		number, err := strconv.ParseUint(port, 10, 32)
		if err != nil {
			return Address{}, fmt.Errorf("parsing listen address %q: port: %w", s, err)
		}
		return Address{cid: uint32(cid), port: uint32(number)}, nil
	}
	return Address{}, fmt.Errorf("parsing listen address %q: want vsock:// or unix://", s)
}

// String returns the form that [ParseAddress] reads.
func (a Address) String() string {
	if a.path != "" {
		return "unix://" + a.path
	}
	if a.cid == unix.VMADDR_CID_ANY {
		return fmt.Sprintf("vsock://-1:%d", a.port)
	}
	return fmt.Sprintf("vsock://%d:%d", a.cid, a.port)
}

// Listen opens the socket. A unix socket has mode 0600 from its first moment and replaces a dead one of the same
// name. The caller closes the listener; Accept hands out every peer, [Server.Serve] sorts them.
func (a Address) Listen(ctx context.Context) (net.Listener, error) {
	if a.path == "" {
		l, err := vsock.ListenContextID(a.cid, a.port, nil)
		if err != nil {
			return nil, fmt.Errorf("listening on %s: %w", a, err)
		}
		return l, nil
	}
	if err := removeSocket(a.path); err != nil {
		return nil, fmt.Errorf("listening on %s: %w", a, err)
	}
	// Linux gives the new file the mode of the unbound socket, so there is no moment with a wider one.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var chmod error
		if err := c.Control(func(fd uintptr) { chmod = unix.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return chmod
	}}
	l, err := config.Listen(ctx, "unix", a.path)
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", a, err)
	}
	return l, nil
}

// removeSocket unlinks path if it is a socket that nobody listens on. Anything else there is left alone.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is in the way and no socket", path)
	}
	if c, err := net.Dial("unix", path); err == nil {
		return errors.Join(fmt.Errorf("%s is in use", path), c.Close())
	}
	return os.Remove(path)
}

// trusted says whether the peer of a connection may speak to the agent at all. On vsock that is the host alone:
// a workload inside the guest reaches the same port by its own context id. On a unix socket it is this process's
// user: the mode says so too, but a descriptor can be handed on.
func trusted(c net.Conn) bool {
	if peer, ok := c.RemoteAddr().(*vsock.Addr); ok {
		return peer.ContextID == unix.VMADDR_CID_HOST
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	same := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		same = err == nil && int(cred.Uid) == os.Geteuid()
	})
	return err == nil && same
}
