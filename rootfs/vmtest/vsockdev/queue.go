// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// region is a piece of guest memory that QEMU shares.
type region struct {
	guest, user uint64 // where it begins for the guest, and in QEMU
	mem         []byte // all that is mapped: the region begins at offset
	offset      uint64
}

// memory is the guest's memory map. Ring addresses are QEMU's, buffer addresses the guest's.
type memory []region

func (m memory) at(addr, size uint64, base func(region) uint64) ([]byte, error) {
	for _, r := range m {
		length := uint64(len(r.mem)) - r.offset
		if start := base(r); addr >= start && addr-start <= length && size <= length-(addr-start) {
			return r.mem[r.offset+addr-start:][:size:size], nil
		}
	}
	return nil, fmt.Errorf("no guest memory at %#x with %d bytes", addr, size)
}

func (m memory) guestAt(addr, size uint64) ([]byte, error) {
	return m.at(addr, size, func(r region) uint64 { return r.guest })
}

func (m memory) userAt(addr, size uint64) ([]byte, error) {
	return m.at(addr, size, func(r region) uint64 { return r.user })
}

func (m memory) unmap() error {
	var errs []error
	for _, r := range m {
		errs = append(errs, unix.Munmap(r.mem))
	}
	return errors.Join(errs...)
}

// Split virtqueue, Virtual I/O Device 1.2, section 2.7.
const (
	descSize        = 16
	descNext        = 1
	descWrite       = 2
	availNoInterupt = 1
	queueSizeMax    = 32768
)

// queue is one virtqueue. All its fields are guarded by the device's mutex.
type queue struct {
	size              uint32
	desc, avail, used []byte
	next              uint16   // index of the next available entry to take
	kick              *os.File // the guest has put entries in; owned by the queue
	call              *os.File // tells the guest that entries were used; owned by the queue
	enabled           bool
}

func (q *queue) ready() bool { return q.enabled && q.avail != nil && q.call != nil && q.size > 0 }

// flagsAndIndex reads the first two 16-bit words of a ring in one access, as the guest writes them while we look.
func flagsAndIndex(ring []byte) (flags, index uint16) {
	v := atomic.LoadUint32((*uint32)(unsafe.Pointer(&ring[0])))
	return uint16(v), uint16(v >> 16)
}

// take returns the next chain of buffers, or ok = false when the guest has put none.
func (q *queue) take(m memory) (head uint16, bufs [][]byte, ok bool, err error) {
	if _, index := flagsAndIndex(q.avail); index == q.next {
		return 0, nil, false, nil
	}
	e := binary.LittleEndian
	head = e.Uint16(q.avail[4+2*(uint32(q.next)%q.size):])
	q.next++
	for i, n := uint32(head), uint32(0); ; n++ {
		if i >= q.size || n >= q.size {
			return 0, nil, false, fmt.Errorf("descriptor %d of %d after %d", i, q.size, n)
		}
		d := q.desc[descSize*i:]
		buf, err := m.guestAt(e.Uint64(d), uint64(e.Uint32(d[8:])))
		if err != nil {
			return 0, nil, false, err
		}
		bufs = append(bufs, buf)
		if e.Uint16(d[12:])&descNext == 0 {
			return head, bufs, true, nil
		}
		i = uint32(e.Uint16(d[14:]))
	}
}

// give returns a chain into which n bytes were written, and interrupts the guest if it wants that.
func (q *queue) give(head uint16, n int) error {
	e := binary.LittleEndian
	index := e.Uint16(q.used[2:])
	entry := q.used[4+8*(uint32(index)%q.size):]
	e.PutUint32(entry, uint32(head))
	e.PutUint32(entry[4:], uint32(n))
	// The entry must be visible before the index, and the index before the guest's flags are read: both are
	// sequentially consistent. The flags of the used ring are ours and stay 0.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&q.used[0])), uint32(index+1)<<16)
	if flags, _ := flagsAndIndex(q.avail); flags&availNoInterupt != 0 {
		return nil
	}
	one := binary.NativeEndian.AppendUint64(nil, 1)
	if _, err := q.call.Write(one); err != nil {
		return fmt.Errorf("interrupting the guest: %w", err)
	}
	return nil
}

func (q *queue) close() {
	for _, f := range []**os.File{&q.kick, &q.call} {
		if *f != nil {
			_ = (*f).Close() // an event counter has nothing to lose
			*f = nil
		}
	}
}
