// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Interface is the [Link] of a network interface of Ethernet, in the network namespace of the calling thread.
type Interface struct {
	Name  string
	Index int
}

// packetConn sees every IPv4 packet of the interface while it is open: before there is an address, the kernel gives a UDP
// socket nothing that is sent to one.
type packetConn struct {
	file *os.File
	raw  syscall.RawConn
	to   unix.SockaddrLinklayer
	from netip.Addr
	buf  [maxFrame]byte
}

// maxFrame is a little more than a message with its headers; what is longer is cut, and then dropped.
const maxFrame = 2048

// Broadcast implements [Link].
func (i Interface) Broadcast(from netip.Addr) (Conn, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a packet socket: %w", err)
	}
	at := unix.SockaddrLinklayer{Protocol: networkOrder(unix.ETH_P_IP), Ifindex: i.Index}
	if err := unix.Bind(fd, &at); err != nil {
		return nil, errors.Join(fmt.Errorf("binding a packet socket to %s: %w", i.Name, err), unix.Close(fd))
	}
	c := &packetConn{file: os.NewFile(uintptr(fd), "packet"), to: at, from: from}
	c.to.Halen = 6
	for n := range c.to.Halen {
		c.to.Addr[n] = 0xff
	}
	if !from.IsValid() {
		c.from = netip.IPv4Unspecified()
	}
	if c.raw, err = c.file.SyscallConn(); err != nil {
		return nil, errors.Join(err, c.file.Close())
	}
	return c, nil
}

func networkOrder(n uint16) uint16 { return n>>8 | n<<8 } // every machine that we run on is little-endian

// Send implements [Conn].
func (c *packetConn) Send(message []byte) error {
	frame := datagram(c.from, netip.AddrFrom4([4]byte{255, 255, 255, 255}), message)
	var failed error
	err := c.raw.Write(func(fd uintptr) bool {
		failed = unix.Sendto(int(fd), frame, 0, &c.to)
		return !errors.Is(failed, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// Receive implements [Conn]. What it returns is valid until the next call.
func (c *packetConn) Receive(deadline time.Time) ([]byte, error) {
	if err := c.file.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	for {
		n, err := c.file.Read(c.buf[:])
		if err != nil {
			return nil, err
		}
		if p := payload(c.buf[:n]); p != nil {
			return p, nil
		}
		if !time.Now().Before(deadline) {
			return nil, os.ErrDeadlineExceeded
		}
	}
}

// Close implements [Conn].
func (c *packetConn) Close() error { return c.file.Close() }

// udpConn talks with one server.
type udpConn struct {
	*net.UDPConn
	to  netip.AddrPort
	buf [maxFrame]byte
}

// Unicast implements [Link].
func (i Interface) Unicast(from, server netip.Addr) (Conn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), i.Name) })
		return errors.Join(err, failed)
	}}
	l, err := config.ListenPacket(context.Background(), "udp4", net.JoinHostPort(from.String(), strconv.Itoa(clientPort)))
	if err != nil {
		return nil, fmt.Errorf("opening the port to renew a lease: %w", err)
	}
	return &udpConn{UDPConn: l.(*net.UDPConn), to: netip.AddrPortFrom(server, serverPort)}, nil
}

// Send implements [Conn].
func (c *udpConn) Send(message []byte) error {
	_, err := c.WriteToUDPAddrPort(message, c.to)
	return err
}

// Receive implements [Conn]. What it returns is valid until the next call.
func (c *udpConn) Receive(deadline time.Time) ([]byte, error) {
	if err := c.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	n, _, err := c.ReadFromUDPAddrPort(c.buf[:])
	return c.buf[:n], err
}
