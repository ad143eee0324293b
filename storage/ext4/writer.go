// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"fmt"
	"io"
)

// chunk is the most that is written at once.
const chunk = 1 << 20

// Range is a run of bytes of the device.
type Range struct{ Offset, Length int64 }

// writer joins what is put in ascending order to large writes, and notes where it wrote.
type writer struct {
	to      io.WriterAt
	zeros   []byte
	pending []byte // not written yet
	at      int64  // where pending starts
	ranges  []Range
}

func newWriter(to io.WriterAt) *writer {
	return &writer{to: to, zeros: make([]byte, chunk), pending: make([]byte, 0, chunk)}
}

// put writes b at a byte offset, now or later.
func (w *writer) put(offset int64, b []byte) error {
	if offset != w.at+int64(len(w.pending)) {
		if err := w.flush(); err != nil {
			return err
		}
		w.at = offset
	}
	for len(b) > 0 {
		n := min(len(b), chunk-len(w.pending))
		w.pending = append(w.pending, b[:n]...)
		b = b[n:]
		if len(w.pending) == chunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// zero writes count zeros at a byte offset, now or later.
func (w *writer) zero(offset, count int64) error {
	for count > 0 {
		n := min(count, chunk)
		if err := w.put(offset, w.zeros[:n]); err != nil {
			return err
		}
		offset, count = offset+n, count-n
	}
	return nil
}

// flush writes what is pending.
func (w *writer) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	if _, err := w.to.WriteAt(w.pending, w.at); err != nil {
		return fmt.Errorf("writing %d bytes at %d: %w", len(w.pending), w.at, err)
	}
	length := int64(len(w.pending))
	if n := len(w.ranges); n > 0 && w.ranges[n-1].Offset+w.ranges[n-1].Length == w.at {
		w.ranges[n-1].Length += length
	} else {
		w.ranges = append(w.ranges, Range{w.at, length})
	}
	w.at += length
	w.pending = w.pending[:0]
	return nil
}
