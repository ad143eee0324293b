// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// errEnd is the end of the stream as this package hands it on. Only a bare io.EOF becomes it: a source that wraps
// io.EOF in an error of its own reports a failure.
var errEnd = errors.New("end of stream")

const (
	blockSize = 512
	// bufferSize is what is read from the source at once. Small files are written straight out of it.
	bufferSize = 1 << 20
	// bigWrite is how much of a large file is collected before it is written: enough to make the system call cheap,
	// little enough to stay in the cache.
	bigWrite = 128 << 10
	// emptyReads is how often a reader may return nothing in a row.
	emptyReads = 100
)

// stream is the input with its one buffer.
type stream struct {
	r     io.Reader
	buf   []byte
	lo    int // buf[lo:hi] is read and not yet consumed
	hi    int
	off   int64 // bytes consumed
	limit int64
	err   error // what r ended with: errEnd or a failure
}

// newStream reads r through a buffer of the given size, at least a block.
func newStream(r io.Reader, limit int64, size int) *stream {
	return &stream{r: r, buf: make([]byte, size), limit: limit}
}

// fill reads until n bytes are buffered. It returns errEnd or r's error when they are not to be had.
func (s *stream) fill(n int) error {
	if s.lo == s.hi {
		s.lo, s.hi = 0, 0
	} else if s.lo+n > len(s.buf) {
		s.hi = copy(s.buf, s.buf[s.lo:s.hi])
		s.lo = 0
	}
	for empty := 0; s.hi-s.lo < n; {
		if s.err != nil {
			return s.err
		}
		var m int
		m, s.err = s.r.Read(s.buf[s.hi:])
		if s.err == io.EOF { //nolint:errorlint // see errEnd
			s.err = errEnd
		}
		s.hi += m
		if m > 0 {
			empty = 0
		} else if empty++; empty > emptyReads && s.err == nil {
			s.err = io.ErrNoProgress
		}
		if s.off+int64(s.hi-s.lo) > s.limit {
			s.err = fmt.Errorf("%w: stream is longer than %d bytes", ErrLimit, s.limit)
			return s.err
		}
	}
	return nil
}

// peek returns the next n bytes, at most the buffer's size, valid until the next call. The error is errEnd when the
// stream ends before the first of them, ErrTruncated when it ends within.
func (s *stream) peek(n int) ([]byte, error) {
	if s.hi-s.lo < n {
		if err := s.fill(n); err != nil {
			if errors.Is(err, errEnd) && s.hi > s.lo {
				return nil, fmt.Errorf("%w: stream ends after %d of %d bytes at offset %d", ErrTruncated, s.hi-s.lo, n, s.off)
			}
			return nil, err
		}
	}
	return s.buf[s.lo : s.lo+n], nil
}

// consume drops n bytes that peek or data has shown.
func (s *stream) consume(n int) {
	s.lo += n
	s.off += int64(n)
}

// data returns the next bytes of content of which left remain: all of them for a small file, a good part of a large
// one.
func (s *stream) data(left int64) ([]byte, error) {
	have := s.hi - s.lo
	want := int(min(left, bigWrite, int64(len(s.buf))))
	if have < want && (have == 0 || int64(want) == left) {
		if err := s.fill(want); err != nil && (s.hi == s.lo || !errors.Is(err, errEnd)) {
			return nil, inEntry(err, left)
		}
	}
	return s.buf[s.lo : s.lo+int(min(left, int64(s.hi-s.lo)))], nil
}

// skip drops n bytes of content.
func (s *stream) skip(n int64) error {
	for n > 0 {
		b, err := s.data(n)
		if err != nil {
			return err
		}
		s.consume(len(b))
		n -= int64(len(b))
	}
	return nil
}

// append copies n bytes of content, and their filler, behind b.
func (s *stream) append(b []byte, n int64) ([]byte, error) {
	for left := n; left > 0; {
		data, err := s.data(left)
		if err != nil {
			return nil, err
		}
		b = append(b, data...)
		s.consume(len(data))
		left -= int64(len(data))
	}
	return b, s.pad(n)
}

// pad drops the filler behind n bytes of content.
func (s *stream) pad(n int64) error {
	return s.skip(-n & (blockSize - 1))
}

// inEntry says that an end of the stream is not expected here.
func inEntry(err error, left int64) error {
	if errors.Is(err, errEnd) {
		return fmt.Errorf("%w: stream ends %d bytes before the end of the content", ErrTruncated, left)
	}
	return err
}

// drainZeros reads the rest of the stream, which must be zeros.
func (s *stream) drainZeros(ctx context.Context) error {
	var zeros [4096]byte
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.fill(1); err != nil {
			if errors.Is(err, errEnd) {
				return nil
			}
			return err
		}
		for s.lo < s.hi {
			n := min(len(zeros), s.hi-s.lo)
			if !bytes.Equal(s.buf[s.lo:s.lo+n], zeros[:n]) {
				return fmt.Errorf("%w at offset %d", ErrTrailing, s.off)
			}
			s.consume(n)
		}
	}
}
