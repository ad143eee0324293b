// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"io"
	"sync"
)

// streamBuffer is how much of an output waits for the host; then the container
// waits. It is twice what a pipe holds: half of it is filled while the other half is read.
const streamBuffer = 128 << 10

// stream carries bytes from one writer to whoever reads, in order and with a
// bounded buffer. Its zero value is not ready: see newStream.
type stream struct {
	reading chan struct{} // holds one token: readers take turns

	mu      sync.Mutex
	bytes   chan struct{} // closed when there are bytes, or none to come; nil: nobody waits for it
	room    chan struct{} // closed when half the buffer is free, or need not be; nil: nobody waits for it
	buf     ring
	ended   bool // nothing more is written
	gone    bool // nobody reads any more
	refused bool // the reader may not read: what finds no room is dropped
	closed  bool // what is written is dropped, and the reader is told something else
}

func newStream() *stream { return &stream{reading: make(chan struct{}, 1)} }

// wake ends the waiting on one of the stream's channels.
func wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// wait returns one of the stream's channels to wait on. The caller has the lock.
func wait(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

// change runs f under the lock and wakes everybody.
func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	wake(&s.bytes)
	wake(&s.room)
}

// Write takes all of p, waiting for room, or fails with io.ErrClosedPipe once the
// stream has ended or nobody reads.
func (s *stream) Write(p []byte) (int, error) { return s.write(context.Background(), p) }

func (s *stream) write(ctx context.Context, p []byte) (done int, err error) {
	for {
		s.mu.Lock()
		if s.gone || s.ended && !s.closed {
			s.mu.Unlock()
			return done, io.ErrClosedPipe
		}
		room := streamBuffer - s.buf.have
		if len(p) == 0 || s.closed || s.refused && room <= 0 {
			s.mu.Unlock()
			return done + len(p), nil
		}
		if room > 0 {
			n := min(room, len(p))
			s.buf.put(p[:n])
			wake(&s.bytes)
			s.mu.Unlock()
			p, done = p[n:], done+n
			continue
		}
		wait := wait(&s.room)
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return done, ctx.Err()
		}
	}
}

// ReadFrom implements io.ReaderFrom with no buffer between r and the stream's own. Nobody else may write meanwhile.
func (s *stream) ReadFrom(r io.Reader) (sum int64, err error) {
	var dropped []byte
	for {
		p, err := s.space()
		if err != nil {
			return sum, err
		}
		if len(p) == 0 {
			if dropped == nil {
				dropped = make([]byte, ringMin)
			}
			p = dropped
		}
		n, err := r.Read(p)
		s.filled(p, n)
		sum += int64(n)
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

// space waits for room and returns where the next bytes go; nil says that they are dropped.
func (s *stream) space() ([]byte, error) {
	for {
		s.mu.Lock()
		if s.gone || s.ended && !s.closed {
			s.mu.Unlock()
			return nil, io.ErrClosedPipe
		}
		room := streamBuffer - s.buf.have
		if s.closed || s.refused && room <= 0 {
			s.mu.Unlock()
			return nil, nil
		}
		if room >= streamBuffer/2 || s.refused {
			p := s.buf.space(room, streamBuffer)
			s.mu.Unlock()
			return p, nil
		}
		wait := wait(&s.room)
		s.mu.Unlock()
		<-wait
	}
}

// filled takes n bytes that were put into p. They are dropped where the buffer is another by now.
func (s *stream) filled(p []byte, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 && s.buf.fill(p, n) {
		wake(&s.bytes)
	}
}

// Close ends the stream for its reader, who gets what is in it first.
func (s *stream) Close() error {
	s.change(func() { s.ended = true })
	return nil
}

// refuse says that the reader may not read: the writer goes on all the same. The next read takes it back.
func (s *stream) refuse() {
	s.change(func() { s.refused = true })
}

// replace gives the reader text and the end of the stream in place of all that is ever written.
func (s *stream) replace(text string) {
	s.change(func() {
		s.closed, s.ended, s.buf = true, true, ring{}
		s.buf.put([]byte(text))
	})
}

// abandon ends the stream for its writer.
func (s *stream) abandon() {
	s.change(func() { s.gone, s.buf = true, ring{} })
}

// read moves 1 to n bytes into what room gives for them, or returns 0 at the end of the
// stream. One caller reads at a time; what it was given is not given again.
func (s *stream) read(ctx context.Context, n int, room func(n int) []byte) (int, error) {
	select {
	case s.reading <- struct{}{}:
		defer func() { <-s.reading }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	for {
		s.mu.Lock()
		s.refused = false
		if have := s.buf.have; have > 0 {
			n = s.buf.take(room(min(n, have)))
			if s.buf.have <= streamBuffer/2 {
				wake(&s.room)
			}
			s.mu.Unlock()
			return n, nil
		}
		if s.ended || s.gone {
			s.mu.Unlock()
			return 0, nil
		}
		wait := wait(&s.bytes)
		s.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// input is the reading side of a stream for what wants an io.ReadCloser: the
// container, which reads its standard input from it.
type input struct{ *stream }

// Read implements io.Reader.
func (i input) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := i.read(context.Background(), len(p), func(n int) []byte { return p[:n] })
	if err == nil && n == 0 {
		err = io.EOF
	}
	return n, err
}

// Close says that nobody reads any more: the process has ended.
func (i input) Close() error {
	i.abandon()
	return nil
}
