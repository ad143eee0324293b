// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"fmt"
	"io"
)

// chunk is the most that is written at once.
const chunk = 4 << 20

// Range is a run of bytes of the device.
type Range struct{ Offset, Length int64 }

// writer joins what is put in ascending order to large writes, and notes where it wrote.
type writer struct {
	to      io.WriterAt
	pending []byte // not written yet
	at      int64  // where pending starts
	ranges  []Range
}

func newWriter(to io.WriterAt) *writer {
	return &writer{to: to, pending: make([]byte, 0, chunk)}
}

// put writes b at a byte offset, now or later.
func (w *writer) put(offset int64, b []byte) error {
	return w.fill(offset, int64(len(b)), func(part []byte) { b = b[copy(part, b):] })
}

// zero writes count zeros at a byte offset, now or later.
func (w *writer) zero(offset, count int64) error {
	return w.fill(offset, count, func(part []byte) { clear(part) })
}

// fill lets next give count bytes at a byte offset, part by part.
func (w *writer) fill(offset, count int64, next func(part []byte)) error {
	if offset != w.at+int64(len(w.pending)) {
		if err := w.flush(); err != nil {
			return err
		}
		w.at = offset
	}
	for count > 0 {
		have := len(w.pending)
		n := int(min(count, int64(chunk-have)))
		w.pending = w.pending[:have+n]
		next(w.pending[have:])
		count -= int64(n)
		if len(w.pending) == chunk {
			if err := w.flush(); err != nil {
				return err
			}
		}
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
