// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"errors"
	"io"
	"net"
)

const (
	// bufferSpace is what we promise the guest to hold for one connection.
	bufferSpace = 256 << 10
	// chunkSize of data fits the 3776-byte receive buffers that Linux 6.12 posts, with the header before it.
	chunkSize = 3584
)

// stream is one connection. Its fields are guarded by the device's mutex; cond is on that mutex and is signalled
// after every change.
type stream struct {
	d   *Device
	key streamKey
	nc  *net.UnixConn

	open      bool // the guest has accepted, or we have
	severed   bool // nothing more goes to the guest; what it sent is still delivered
	dead      bool // nothing more goes anywhere
	peerAlloc uint32
	peerTaken uint32 // bytes that the guest has taken of ours
	sent      uint32 // bytes that we sent

	queue     [][]byte // data of the guest that the host has not taken yet
	taken     uint32   // bytes of the guest that the host has taken
	told      uint32   // the same when the guest was last told
	guestDone bool     // the guest will not send any more
}

// credit notes what a packet says about the guest's buffers.
func (s *stream) credit(p packet) {
	s.peerAlloc, s.peerTaken = p.alloc, p.forwarded
	s.d.cond.Broadcast()
}

// run moves bytes in both directions until either side ends the connection. The device's mutex is not held.
func (s *stream) run(fromHost io.Reader) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.toHost()
	}()
	s.toGuest(fromHost)
	<-done
	_ = s.nc.Close() // both directions are at their end
}

// toGuest reads from the host until its end, as fast as the guest takes it.
func (s *stream) toGuest(r io.Reader) {
	buf := make([]byte, chunkSize)
	for {
		n, err := r.Read(buf)
		s.d.mu.Lock()
		for !s.dead && !s.severed && s.sent-s.peerTaken+uint32(n) > s.peerAlloc {
			s.d.cond.Wait()
		}
		if s.dead || s.severed {
			s.d.mu.Unlock()
			return
		}
		if n > 0 {
			s.sent += uint32(n)
			s.send(opData, 0, append([]byte(nil), buf[:n]...))
		}
		if err != nil {
			s.send(opShutdown, shutdownSend, nil)
		}
		s.d.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// toHost writes what the guest sent until the guest is done or the host is gone.
func (s *stream) toHost() {
	for {
		s.d.mu.Lock()
		for len(s.queue) == 0 && !s.guestDone && !s.dead {
			s.d.cond.Wait()
		}
		if len(s.queue) == 0 || s.dead {
			finished := s.guestDone && !s.dead
			s.d.mu.Unlock()
			if finished {
				_ = s.nc.CloseWrite() // the host may be gone already
			} else {
				_ = s.nc.Close() // a reset; this also frees toGuest from its read
			}
			return
		}
		b := s.queue[0]
		s.queue = s.queue[1:]
		s.d.mu.Unlock()

		_, err := s.nc.Write(b)
		s.d.mu.Lock()
		s.taken += uint32(len(b))
		if s.taken-s.told > bufferSpace/4 && !s.dead && !s.severed {
			s.send(opCreditUpdate, 0, nil)
		}
		if err != nil && !s.dead {
			if !s.severed {
				s.send(opReset, 0, nil)
			}
			s.d.drop(s)
		}
		s.d.mu.Unlock()
	}
}

// receive handles a packet of the guest for this connection. The device's mutex is held.
func (s *stream) receive(p packet) {
	s.credit(p)
	switch p.op {
	case opResponse:
		s.open = true
	case opData:
		if used := sizeOf(s.queue) + len(p.data); used > bufferSpace {
			s.d.fail(errors.New("the guest sends more than its credit"))
			return
		}
		s.queue = append(s.queue, append([]byte(nil), p.data...))
	case opShutdown:
		if p.flags&shutdownSend != 0 {
			s.guestDone = true
		}
		if p.flags&(shutdownSend|shutdownReceive) == shutdownSend|shutdownReceive {
			s.send(opReset, 0, nil)
			s.finish()
		}
	case opCreditRequest:
		s.send(opCreditUpdate, 0, nil)
	case opReset:
		s.finish()
	}
	s.d.cond.Broadcast()
}

// finish ends the connection on the guest's side. What the guest sent before is still delivered.
func (s *stream) finish() {
	s.guestDone, s.severed = true, true
	s.d.forget(s)
	_ = s.nc.CloseRead() // frees toGuest from its read
}

func (s *stream) send(op operation, flags uint32, data []byte) {
	s.told = s.taken
	s.d.enqueue(packet{key: s.key, op: op, flags: flags, alloc: bufferSpace, forwarded: s.taken, data: data})
}

func sizeOf(queue [][]byte) (n int) {
	for _, b := range queue {
		n += len(b)
	}
	return n
}
