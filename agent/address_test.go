// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mdlayher/vsock"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		in, out string // out empty: refused
	}{
		{DefaultAddress, "vsock://-1:1024"},
		{"vsock://3:1025", "vsock://3:1025"},
		{"vsock://4294967295:1024", "vsock://-1:1024"},
		{"unix:///run/a.sock", "unix:///run/a.sock"},
		{"", ""},
		{"vsock://", ""},
		{"vsock://-1", ""},
		{"vsock://-2:1024", ""},
		{"vsock://-1:4294967296", ""},
		{"vsock://-1:0x400", ""},
		{"vsock://:1024", ""},
		{"unix://@abstract", ""},
		{"unix://relative", ""},
		{"unix:///run/a\x00b", ""},
		{"tcp://127.0.0.1:1024", ""},
		{"VSOCK://-1:1024", ""},
	} {
		a, err := ParseAddress(tt.in)
		if tt.out == "" {
			if err == nil {
				t.Errorf("%q was accepted", tt.in)
			}
			continue
		}
		if err != nil || a.String() != tt.out {
			t.Errorf("%q: got %v, %v", tt.in, a, err)
		}
	}
}

// TestGHSA_g8fc_vrcg_8vjg: services of a confidential cluster were open to whoever shared its network. The sandbox API
// has no address that a network reaches, however it is written; what a guest does listen on is TestVMNoTCP's.
func TestGHSA_g8fc_vrcg_8vjg(t *testing.T) {
	for _, in := range []string{
		"tcp://0.0.0.0:1024", "tcp://[::]:1024", "tcp4://:1024", "udp://0.0.0.0:1024", ":1024", "0.0.0.0:1024", "[::]:1024", "10.0.0.5:1024", "http://0.0.0.0:1024", "//0.0.0.0:1024",
		"vsock://0.0.0.0:1024", "vsock://10.0.0.5:1024", "unix://0.0.0.0:1024", "unix:0.0.0.0:1024", "ip://10.0.0.5:1024", "fd://3", "systemd://3",
	} {
		if a, err := ParseAddress(in); err == nil {
			t.Errorf("%q was accepted as %v", in, a)
		}
	}
}

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	a, err := ParseAddress("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v; want a socket with 0600", info.Mode(), err)
	}
	if _, err := a.Listen(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a live socket was replaced: %v", err)
	}
	first.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := a.Listen(t.Context())
	if err != nil {
		t.Fatalf("a dead socket was not replaced: %v", err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Listen(t.Context()); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

// peer is a connection that only has a remote address.
type peer struct {
	net.Conn
	addr net.Addr
}

func (p peer) RemoteAddr() net.Addr { return p.addr }

func TestTrustedPeers(t *testing.T) {
	for cid, want := range map[uint32]bool{vsock.Host: true, vsock.Local: false, vsock.Hypervisor: false, 3: false, 0xffffffff: false} {
		if got := trusted(peer{addr: &vsock.Addr{ContextID: cid, Port: 1024}}); got != want {
			t.Errorf("context id %d: trusted %v", cid, got)
		}
	}
	if trusted(peer{addr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}) {
		t.Error("a TCP peer is trusted")
	}
}

func TestListenVsock(t *testing.T) {
	a, err := ParseAddress("vsock://-1:31024")
	if err != nil {
		t.Fatal(err)
	}
	l, err := a.Listen(t.Context())
	if errors.Is(err, os.ErrNotExist) || err != nil && strings.Contains(err.Error(), "address family not supported") {
		t.Skipf("this kernel has no AF_VSOCK: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}
