// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"io"
	"sync"
)

// streamBuffer is how much of an output waits for the host; then the container
// waits. It is the default size of a pipe.
const streamBuffer = 64 << 10

// stream carries bytes from one writer to whoever reads, in order and with a
// bounded buffer. Its zero value is not ready: see newStream.
type stream struct {
	reading chan struct{} // holds one token: readers take turns

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each change of what follows
	buf     ring
	ended   bool // nothing more is written
	gone    bool // nobody reads any more
	refused bool // the reader may not read: what finds no room is dropped
	closed  bool // what is written is dropped, and the reader is told something else
}

func newStream() *stream {
	return &stream{reading: make(chan struct{}, 1), changed: make(chan struct{})}
}

// change runs f under the lock and wakes whoever waits.
func (s *stream) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
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
		wait := s.changed
		room := streamBuffer - s.buf.have
		drop := s.closed || s.refused && room <= 0
		s.mu.Unlock()
		if len(p) == 0 || drop {
			return done + len(p), nil
		}
		if room > 0 {
			n := min(room, len(p))
			s.change(func() { s.buf.put(p[:n]) })
			p, done = p[n:], done+n
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return done, ctx.Err()
		}
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
		wait, have, over := s.changed, s.buf.have, s.ended || s.gone
		s.mu.Unlock()
		if have > 0 {
			p := room(min(n, have))
			s.change(func() { n = s.buf.take(p[:min(len(p), s.buf.have)]) })
			return n, nil
		}
		if over {
			return 0, nil
		}
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
