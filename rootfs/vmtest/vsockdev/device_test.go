// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// driver plays QEMU and the guest's driver: it shares memory with a device and works the rings by hand.
type driver struct {
	t       *testing.T
	d       *Device
	control *net.UnixConn
	mem     []byte
	kick    [2]int
	avail   [2]uint16 // entries put so far
	used    [2]uint16 // entries seen so far
}

const (
	testCID   = 7
	guestBase = 0x1000_0000 // the memory's address for the guest
	userBase  = 0x7000_0000 // and in QEMU
	ringSize  = 8
	ringSpace = 0x1000 // of each queue: descriptors, then the rings
	bufSpace  = 0x1000 // of each buffer, behind the rings
	memSize   = 2*ringSpace + 2*ringSize*bufSpace
)

func newDriver(t *testing.T) *driver {
	t.Helper()
	d, err := Start(t.Context(), t.TempDir(), testCID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	c, err := net.Dial("unix", d.Socket())
	if err != nil {
		t.Fatal(err)
	}
	g := &driver{t: t, d: d, control: c.(*net.UnixConn)}
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, memSize); err != nil {
		t.Fatal(err)
	}
	if g.mem, err = unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
	table := words(1, guestBase, memSize, userBase, 0)
	g.send(reqSetMemTable, table, fd)
	for q := range 2 {
		if g.kick[q], err = unix.Eventfd(0, unix.EFD_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		call, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		base := uint64(userBase + q*ringSpace)
		g.send(reqSetVringNum, state(q, ringSize))
		g.send(reqSetVringBase, state(q, 0))
		g.send(reqSetVringAddr, append(state(q, 0), words(base, base+0x400, base+0x800, 0)...))
		g.send(reqSetVringCall, words(uint64(q)), call)
		g.send(reqSetVringKick, words(uint64(q)), g.kick[q])
		g.send(reqSetVringEnable, state(q, 1))
	}
	for range ringSize - 1 {
		g.offer(queueReceive, nil)
	}
	return g
}

func words(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

func state(queue int, value uint32) []byte {
	return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, uint32(queue)), value)
}

// send sends a control message, asks for an answer and returns it.
func (g *driver) send(request uint32, body []byte, fds ...int) []byte {
	g.t.Helper()
	b := binary.LittleEndian.AppendUint32(nil, request)
	b = binary.LittleEndian.AppendUint32(b, flagVersion|flagNeedReply)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := g.control.WriteMsgUnix(append(b, body...), oob, nil); err != nil {
		g.t.Fatal(err)
	}
	head := make([]byte, messageHeaderSize)
	if _, err := io.ReadFull(g.control, head); err != nil {
		g.t.Fatalf("request %d: %v", request, err)
	}
	answer := make([]byte, binary.LittleEndian.Uint32(head[8:]))
	if _, err := io.ReadFull(g.control, answer); err != nil {
		g.t.Fatal(err)
	}
	return answer
}

// offer puts a buffer of a queue into its ring: with the packet of the guest, or empty to receive.
func (g *driver) offer(queue int, packet []byte) {
	g.t.Helper()
	e := binary.LittleEndian
	slot := int(g.avail[queue]) % ringSize
	buf := 2*ringSpace + (queue*ringSize+slot)*bufSpace
	length, flags := len(packet), 0
	copy(g.mem[buf:buf+bufSpace], packet)
	if packet == nil {
		length, flags = packetHeaderSize+chunkSize, descWrite
	}
	desc := g.mem[queue*ringSpace+descSize*slot:]
	e.PutUint64(desc, uint64(guestBase+buf))
	e.PutUint32(desc[8:], uint32(length))
	e.PutUint16(desc[12:], uint16(flags))
	ring := g.mem[queue*ringSpace+0x800:]
	e.PutUint16(ring[4+2*slot:], uint16(slot))
	g.avail[queue]++
	e.PutUint16(ring[2:], g.avail[queue])
	if _, err := unix.Write(g.kick[queue], words(1)); err != nil {
		g.t.Fatal(err)
	}
}

// receive waits for the next packet of the device and offers the buffer again.
func (g *driver) receive() packet {
	g.t.Helper()
	e := binary.LittleEndian
	ring := g.mem[0x400:]
	for deadline := time.Now().Add(5 * time.Second); e.Uint16(ring[2:]) == g.used[0]; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.t.Fatal("the device sends nothing")
		}
	}
	entry := ring[4+8*(int(g.used[0])%ringSize):]
	slot, n := int(e.Uint32(entry)), int(e.Uint32(entry[4:]))
	g.used[0]++
	b := bytes.Clone(g.mem[2*ringSpace+slot*bufSpace:][:n])
	g.offer(queueReceive, nil)
	if src, dst := e.Uint64(b), e.Uint64(b[8:]); src != hostCID || dst != testCID {
		g.t.Errorf("packet from %d to %d", src, dst)
	}
	// Seen from the guest the ports are the other way round.
	swapped := bytes.Clone(b)
	copy(swapped[16:20], b[20:24])
	copy(swapped[20:24], b[16:20])
	p, err := parsePacket(swapped)
	if err != nil {
		g.t.Fatal(err)
	}
	return p
}

func (g *driver) transmit(p packet) {
	b := p.marshal(hostCID)
	binary.LittleEndian.PutUint64(b, testCID)
	binary.LittleEndian.PutUint32(b[16:], p.key.guest)
	binary.LittleEndian.PutUint32(b[20:], p.key.host)
	g.offer(queueTransmit, b)
}

func (g *driver) expect(op operation) packet {
	g.t.Helper()
	p := g.receive()
	if p.op != op {
		g.t.Fatalf("got operation %d, want %d", p.op, op)
	}
	return p
}

// dialled is a connection from the host, as the guest has accepted it.
func (g *driver) dialled(port uint32) (net.Conn, streamKey) {
	g.t.Helper()
	type result struct {
		c   net.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		c, err := Dial(g.t.Context(), g.d.HostSocket(), port)
		done <- result{c, err}
	}()
	p := g.expect(opRequest)
	if p.key.guest != port || p.alloc != bufferSpace {
		g.t.Errorf("request %+v", p)
	}
	g.transmit(packet{key: p.key, op: opResponse, alloc: 64 << 10})
	r := <-done
	if r.err != nil {
		g.t.Fatal(r.err)
	}
	g.t.Cleanup(func() { _ = r.c.Close() })
	return r.c, p.key
}

func TestConfiguration(t *testing.T) {
	g := newDriver(t)
	answer := g.send(reqGetConfig, append(make([]byte, 12), make([]byte, 8)...))
	if cid := binary.LittleEndian.Uint64(answer[12:]); cid != testCID {
		t.Errorf("context id %d", cid)
	}
	if f := binary.LittleEndian.Uint64(g.send(reqGetFeatures, nil)); f != 1<<32|1<<30 {
		t.Errorf("features %#x", f)
	}
}

func TestHostDials(t *testing.T) {
	g := newDriver(t)
	c, key := g.dialled(1024)
	if _, err := c.Write([]byte("from the host")); err != nil {
		t.Fatal(err)
	}
	if p := g.expect(opData); string(p.data) != "from the host" || p.key != key {
		t.Errorf("got %q on %v", p.data, p.key)
	}
	g.transmit(packet{key: key, op: opData, alloc: 64 << 10, forwarded: 13, data: []byte("from the guest")})
	b := make([]byte, 14)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "from the guest" {
		t.Errorf("got %q, %v", b, err)
	}
	// The guest ends its side, with a last word; the host ends its own.
	g.transmit(packet{key: key, op: opData, data: []byte("bye"), alloc: 64 << 10, forwarded: 13})
	g.transmit(packet{key: key, op: opShutdown, flags: shutdownSend, alloc: 64 << 10, forwarded: 13})
	if rest, err := io.ReadAll(c); err != nil || string(rest) != "bye" {
		t.Errorf("got %q, %v", rest, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if p := g.expect(opShutdown); p.flags != shutdownSend {
		t.Errorf("flags %d", p.flags)
	}
}

func TestGuestRefuses(t *testing.T) {
	g := newDriver(t)
	done := make(chan error, 1)
	go func() {
		c, err := Dial(t.Context(), g.d.HostSocket(), 9)
		if err == nil {
			_ = c.Close()
		}
		done <- err
	}()
	g.transmit(packet{key: g.expect(opRequest).key, op: opReset})
	if err := <-done; err == nil {
		t.Error("the host was told that it is connected")
	}
}

func TestGuestDials(t *testing.T) {
	g := newDriver(t)
	l, err := net.Listen("unix", g.d.HostSocket()+"_5000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	key := streamKey{host: 5000, guest: 33}
	g.transmit(packet{key: key, op: opRequest, alloc: 64 << 10})
	g.expect(opResponse)
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	g.transmit(packet{key: key, op: opData, alloc: 64 << 10, data: []byte("hello")})
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	g.transmit(packet{key: streamKey{host: 5001, guest: 34}, op: opRequest})
	g.expect(opReset) // nobody listens there
}

// TestCredit: the host's bytes wait for room in the guest, and a flood from the guest is acknowledged.
func TestCredit(t *testing.T) {
	g := newDriver(t)
	c, key := g.dialled(1024)
	go func() { _, _ = c.Write(bytes.Repeat([]byte("x"), 100<<10)) }()
	got := uint32(0)
	for got+chunkSize <= 64<<10 {
		got += uint32(len(g.expect(opData).data))
	}
	time.Sleep(50 * time.Millisecond)
	if g.mem[0x402] != byte(g.used[0]) {
		t.Fatal("the device sent more than the guest has room for")
	}
	g.transmit(packet{key: key, op: opCreditUpdate, alloc: 64 << 10, forwarded: got})
	for got < 100<<10 {
		got += uint32(len(g.expect(opData).data))
	}
	go func() { _, _ = io.Copy(io.Discard, c) }()
	for sent := 0; sent <= bufferSpace/4; sent += 2048 {
		g.transmit(packet{key: key, op: opData, alloc: 1 << 20, forwarded: got, data: make([]byte, 2048)})
		for e := binary.LittleEndian; e.Uint16(g.mem[ringSpace+0x402:]) != g.avail[1]; {
			time.Sleep(time.Millisecond)
		}
	}
	if p := g.expect(opCreditUpdate); p.forwarded <= bufferSpace/4 {
		t.Errorf("%d bytes taken", p.forwarded)
	}
}

func TestResetReachesTheHost(t *testing.T) {
	g := newDriver(t)
	c, key := g.dialled(1024)
	g.transmit(packet{key: key, op: opReset})
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Errorf("got %q, %v", b, err)
	}
	g.transmit(packet{key: key, op: opData, data: []byte("late")})
	g.expect(opReset)
}

// TestHandshakes: what is no handshake ends the connection.
func TestHandshakes(t *testing.T) {
	g := newDriver(t)
	for _, line := range []string{"HELLO 1024\n", "CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "CONNECT -1\n", strings.Repeat("C", 100)} {
		c, err := net.Dial("unix", g.d.HostSocket())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, line); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); len(b) > 0 || err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("%q: %q, %v", line, b, err)
		}
		_ = c.Close()
	}
}

// TestBadControlMessages: each ends the control connection with an error, and nothing else.
func TestBadControlMessages(t *testing.T) {
	for name, m := range map[string]message{
		"short memory table":    {request: reqSetMemTable, body: []byte{1}},
		"memory without files":  {request: reqSetMemTable, body: append(words(1), make([]byte, regionSize)...)},
		"many regions":          {request: reqSetMemTable, body: words(1 << 31)},
		"queue 3":               {request: reqSetVringNum, body: state(3, 8)},
		"queue of 3 entries":    {request: reqSetVringNum, body: state(0, 3)},
		"queue of no entries":   {request: reqSetVringNum, body: state(0, 0)},
		"rings outside memory":  {request: reqSetVringAddr, body: append(state(0, 0), words(1, 2, 3, 4)...)},
		"short ring addresses":  {request: reqSetVringAddr, body: state(0, 0)},
		"short queue state":     {request: reqSetVringBase, body: []byte{0}},
		"short configuration":   {request: reqGetConfig, body: []byte{0}},
		"configuration outside": {request: reqGetConfig, body: append([]byte{9, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 8)...)},
	} {
		d, err := Start(t.Context(), t.TempDir(), testCID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.handle(&m); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryBounds(t *testing.T) {
	m := memory{{guest: 0x1000, user: 0x9000, mem: make([]byte, 0x110), offset: 0x10}}
	for _, tt := range []struct {
		addr, size uint64
		ok         bool
	}{
		{0x1000, 0x100, true}, {0x10ff, 1, true}, {0x1100, 0, true},
		{0xfff, 1, false}, {0x1000, 0x101, false}, {0x1100, 1, false}, {0x1001, 1<<64 - 1, false}, {1<<64 - 1, 2, false},
	} {
		b, err := m.guestAt(tt.addr, tt.size)
		if (err == nil) != tt.ok || err == nil && uint64(len(b)) != tt.size {
			t.Errorf("%#x+%#x: %d bytes, %v", tt.addr, tt.size, len(b), err)
		}
	}
}

func TestParsePacket(t *testing.T) {
	good := packet{key: streamKey{1, 2}, op: opData, data: []byte("abc")}.marshal(3)
	for name, b := range map[string][]byte{"empty": nil, "short": good[:43], "cut data": good[:46]} {
		if _, err := parsePacket(b); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	datagram := bytes.Clone(good)
	datagram[28] = 2
	if _, err := parsePacket(datagram); err == nil {
		t.Error("a datagram was accepted")
	}
}
