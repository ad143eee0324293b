// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
)

// Queues of the device that this side serves; the event queue has nothing to say.
const (
	queueReceive  = 0 // to the guest
	queueTransmit = 1 // from the guest
	queueCount    = 3
)

// firstHostPort is where the ports of connections from the host begin: above those that anybody binds.
const firstHostPort = 1 << 30

// Device is a vsock device for one guest.
type Device struct {
	cid    uint64
	socket string // where QEMU connects
	host   string // where host programs connect

	mu   sync.Mutex
	cond *sync.Cond // on mu; signalled when a stream or the device changes
	// All below is guarded by mu.
	mem      memory
	queues   [queueCount]queue
	out      []packet // to the guest, waiting for buffers
	streams  map[streamKey]*stream
	nextPort uint32
	err      error // the first failure
	stopped  bool
	closers  []func() error

	wg sync.WaitGroup // all goroutines of the device
}

// Start makes the device's sockets in dir: QEMU is given [Device.Socket], host programs use [Device.HostSocket]. The
// caller ends the device with Stop after the guest has ended.
func Start(ctx context.Context, dir string, cid uint64) (*Device, error) {
	d := &Device{
		cid:      cid,
		socket:   filepath.Join(dir, "vhost.sock"),
		host:     filepath.Join(dir, "vsock.sock"),
		streams:  make(map[streamKey]*stream),
		nextPort: firstHostPort,
	}
	d.cond = sync.NewCond(&d.mu)
	var config net.ListenConfig
	control, err := config.Listen(ctx, "unix", d.socket)
	if err != nil {
		return nil, fmt.Errorf("listening for the virtual machine: %w", err)
	}
	hosts, err := config.Listen(ctx, "unix", d.host)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening for host programs: %w", err), control.Close())
	}
	d.closers = append(d.closers, control.Close, hosts.Close)
	d.wg.Go(func() { d.serveControl(control.(*net.UnixListener)) })
	d.wg.Go(func() { d.serveHost(hosts.(*net.UnixListener)) })
	return d, nil
}

// Socket is the path of the vhost-user socket.
func (d *Device) Socket() string { return d.socket }

// HostSocket is the path of the hybrid vsock socket.
func (d *Device) HostSocket() string { return d.host }

// Stop ends every connection and waits for all that the device started. It returns the first thing that went wrong
// while the device ran, other than the guest going away.
func (d *Device) Stop() error {
	d.mu.Lock()
	d.stopped = true
	for _, s := range d.streams {
		d.drop(s)
	}
	for _, f := range d.closers {
		_ = f() // sockets without data of worth
	}
	for i := range d.queues {
		d.queues[i].close()
	}
	d.cond.Broadcast()
	d.mu.Unlock()
	d.wg.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	err := errors.Join(d.err, d.mem.unmap())
	d.mem = nil
	return err
}

// onStop has f called by Stop, or at once when the device is stopping already. mu is not held.
func (d *Device) onStop(f func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		_ = f()
		return
	}
	d.closers = append(d.closers, f)
}

// fail keeps the first error. mu is held.
func (d *Device) fail(err error) {
	if d.err == nil && !d.stopped {
		d.err = err
	}
}

// enqueue sends a packet to the guest, now or when it has a buffer. mu is held. The list is bounded by the guest's
// credit for data and by the number of its packets for the rest.
func (d *Device) enqueue(p packet) {
	d.out = append(d.out, p)
	d.flush()
}

// flush moves waiting packets into the guest's buffers. mu is held.
func (d *Device) flush() {
	q := &d.queues[queueReceive]
	for len(d.out) > 0 && q.ready() {
		head, bufs, ok, err := q.take(d.mem)
		if err != nil || !ok {
			if err != nil {
				d.fail(fmt.Errorf("receive queue: %w", err))
			}
			return
		}
		rest, n := d.out[0].marshal(d.cid), 0
		for _, b := range bufs {
			m := copy(b, rest)
			rest, n = rest[m:], n+m
		}
		if len(rest) > 0 {
			d.fail(fmt.Errorf("receive queue: a buffer lacks %d bytes", len(rest)))
		}
		d.out = d.out[1:]
		if err := q.give(head, n); err != nil {
			d.fail(fmt.Errorf("receive queue: %w", err))
		}
	}
}

// transmit takes the packets that the guest has queued. mu is held.
func (d *Device) transmit() {
	q := &d.queues[queueTransmit]
	for q.ready() {
		head, bufs, ok, err := q.take(d.mem)
		if err != nil || !ok {
			if err != nil {
				d.fail(fmt.Errorf("transmit queue: %w", err))
			}
			return
		}
		var b []byte
		for _, buf := range bufs {
			b = append(b, buf...)
		}
		if err := q.give(head, 0); err != nil {
			d.fail(fmt.Errorf("transmit queue: %w", err))
		}
		p, err := parsePacket(b)
		if err != nil {
			d.fail(fmt.Errorf("transmit queue: %w", err))
			continue
		}
		d.dispatch(p)
	}
}

// dispatch hands a packet of the guest to its connection. mu is held.
func (d *Device) dispatch(p packet) {
	s := d.streams[p.key]
	switch {
	case s != nil && p.op != opRequest:
		s.receive(p)
	case s == nil && p.op == opRequest:
		d.wg.Go(func() { d.fromGuest(p) })
	case p.op != opReset:
		d.enqueue(packet{key: p.key, op: opReset})
	}
}

// add puts a new connection into the table. mu is held.
func (d *Device) add(key streamKey, nc *net.UnixConn) *stream {
	s := &stream{d: d, key: key, nc: nc}
	d.streams[key] = s
	return s
}

func (d *Device) forget(s *stream) {
	if d.streams[s.key] == s {
		delete(d.streams, s.key)
	}
	d.cond.Broadcast()
}

// drop ends a connection at once, in both directions. mu is held.
func (d *Device) drop(s *stream) {
	s.dead = true
	_ = s.nc.Close() // frees whoever reads or writes it
	d.forget(s)
}

// kicked serves a queue each time the guest asks for it, until its event counter is closed.
func (d *Device) kicked(index int, kick *os.File) {
	var b [8]byte
	for {
		if _, err := kick.Read(b[:]); err != nil {
			return
		}
		d.mu.Lock()
		d.serve(index)
		d.mu.Unlock()
	}
}

// serve looks at one queue. mu is held.
func (d *Device) serve(index int) {
	switch index {
	case queueReceive:
		d.flush()
	case queueTransmit:
		d.transmit()
	}
}
