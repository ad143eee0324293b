// SPDX-License-Identifier: Apache-2.0

//go:build root

package network

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// announce sends a router announcement to the cable; before its address is settled the kernel refuses to.
func announce(t *testing.T, c net.PacketConn, b []byte) {
	t.Helper()
	p := ipv6.NewPacketConn(c)
	if err := p.SetMulticastHopLimit(255); err != nil {
		t.Fatal(err)
	}
	_, err := c.WriteTo(b, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: serverLinkIndex(t, c)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		t.Fatal(err)
	}
}

// serverLinkIndex is the cable's end in the server's namespace: lo is the first interface there, and it the only other.
func serverLinkIndex(t *testing.T, c net.PacketConn) string {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	index := 0
	_ = raw.Control(func(fd uintptr) {
		req, err := unix.NewIfreq(serverLink)
		if err == nil && unix.IoctlIfreq(int(fd), unix.SIOCGIFINDEX, req) == nil {
			index = int(req.Uint32())
		}
	})
	return strconv.Itoa(index)
}

// liar is a DHCP server that says what the test wants: a list of messages to each query.
type liar struct {
	conn net.PacketConn

	mu    sync.Mutex
	say   func(kind byte, renewing bool, query []byte) [][]byte // guarded by mu
	heard []byte                                                // guarded by mu; the kinds of all queries
}

func (w *wire) liar(t *testing.T) *liar {
	t.Helper()
	l := &liar{}
	w.in(t, func() (err error) {
		config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			var failed error
			err := raw.Control(func(fd uintptr) {
				failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1), unix.BindToDevice(int(fd), serverLink))
			})
			return errors.Join(err, failed)
		}}
		l.conn, err = config.ListenPacket(context.Background(), "udp4", ":67")
		return err
	})
	done := make(chan struct{})
	go func() { defer close(done); l.serve() }()
	t.Cleanup(func() { _ = l.conn.Close(); <-done })
	return l
}

func (l *liar) serve() {
	b := make([]byte, 2048)
	for {
		n, from, err := l.conn.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 243 {
			continue
		}
		query := b[:n]
		l.mu.Lock()
		say := l.say
		l.heard = append(l.heard, query[242])
		l.mu.Unlock()
		to := net.Addr(&net.UDPAddr{IP: net.IPv4bcast, Port: 68})
		renewing := binary.BigEndian.Uint32(query[12:]) != 0
		if renewing {
			to = from
		}
		for _, message := range say(query[242], renewing, query) {
			_, _ = l.conn.WriteTo(message, to)
		}
	}
}

func (l *liar) says(f func(kind byte, renewing bool, query []byte) [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.say = f
}

// message is an answer to query that gives yours for an hour, to be renewed after five seconds.
func message(kind byte, query []byte, yours, router string) []byte {
	four := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	b := make([]byte, 240, 300)
	b[0], b[1], b[2] = 2, 1, 6
	copy(b[4:8], query[4:8])
	copy(b[16:20], four(yours))
	copy(b[28:34], query[28:34])
	copy(b[236:], []byte{99, 130, 83, 99})
	b = append(b, 53, 1, kind, 54, 4, 192, 0, 2, 1)
	if kind == 6 {
		return append(b, 255)
	}
	b = append(append(b, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 0, 5, 3, 4), four(router)...)
	return append(b, 6, 4, 192, 0, 2, 53, 255)
}

// good follows the protocol.
func good(yours, router string) func(byte, bool, []byte) [][]byte {
	return func(kind byte, _ bool, query []byte) [][]byte {
		answer := map[byte]byte{1: 2, 3: 5}[kind]
		return [][]byte{message(answer, query, yours, router)}
	}
}

// TestRootHostileServer: a server that says everything wrong, then gives an address, changes it while it renews, takes it
// back, and goes silent behind a new one.
func TestRootHostileServer(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.plug(t)
	l := w.liar(t)
	l.says(func(kind byte, _ bool, query []byte) [][]byte {
		other, foreign, loop := message(2, query, "192.0.2.9", "192.0.2.1"), message(2, query, "192.0.2.9", "192.0.2.1"), message(2, query, "127.0.0.9", "192.0.2.1")
		other[7]++
		foreign[30]++
		return [][]byte{nil, []byte("garbage"), query, other, foreign, loop, message(2, query, "192.0.2.9", "198.51.100.1"), message(5, query, "192.0.2.9", "192.0.2.1")}
	})
	g := w.start(t, Config{DHCP: true})
	g.expect(t, "wait network-refused")
	if out, err := exec.Command("ip", "-n", w.guest, "-4", "addr", "show", "dev", guestLink).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("set up by garbage: %s, %v", out, err)
	}
	l.says(good("192.0.2.9", "192.0.2.1"))
	g.expect(t, "up eth0 192.0.2.9/24")
	l.says(good("192.0.2.77", "192.0.2.2"))
	s := g.until(t, "changed by renewing", func(s guestState) bool { return has(s.Addresses, "192.0.2.77/24") && len(s.Addresses) == 1 })
	if len(s.Routes) != 2 || !has(s.Routes, "0.0.0.0/0 via 192.0.2.2") || s.Resolver != "nameserver 192.0.2.53\n" {
		t.Errorf("got %+v", s)
	}
	l.says(func(kind byte, renewing bool, query []byte) [][]byte {
		if renewing {
			return [][]byte{message(6, query, "0.0.0.0", "")}
		}
		return nil
	})
	g.expect(t, "wait network-lost")
	g.until(t, "without an address", func(s guestState) bool { return len(s.Addresses) == 0 && len(s.Routes) == 0 })
	l.says(good("192.0.2.88", "192.0.2.1"))
	g.until(t, "set up anew", func(s guestState) bool {
		return has(s.Addresses, "192.0.2.88/24") && has(s.Routes, "0.0.0.0/0 via 192.0.2.1")
	})
}

// TestRootSilence: nobody answers, and one line says so.
func TestRootSilence(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	w.plug(t)
	l := w.liar(t)
	l.says(func(byte, bool, []byte) [][]byte { return nil })
	g := w.start(t, Config{DHCP: true})
	g.expect(t, "wait network-offer")
	l.says(good("192.0.2.9", "192.0.2.1"))
	g.expect(t, "up eth0 192.0.2.9/24")
	if got := len(g.lines()); got != 2 {
		t.Errorf("%d lines: %q", got, g.lines())
	}
}
