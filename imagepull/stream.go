// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

const (
	// chunkSize is the unit that stages hand to each other: large enough that
	// the hand-over costs nothing, small enough that what one core wrote is
	// still in the cache when another reads it.
	chunkSize = 128 << 10
	// streamDepth is how many chunks may wait between two stages. With the
	// chunks that stages hold it bounds a layer's buffers to about 3 MiB,
	// whatever the layer's size.
	streamDepth = 4
	// maxIdleReads is how often in a row a reader may return nothing.
	maxIdleReads = 100
)

// chunk is a piece of a layer's bytes. It goes back to its pool when the last
// stage that it was given to has released it.
type chunk struct {
	buf  []byte // what is filled of the chunkSize bytes
	refs atomic.Int32
	pool *sync.Pool
}

func newChunkPool() *sync.Pool {
	pool := new(sync.Pool)
	pool.New = func() any {
		return &chunk{buf: make([]byte, 0, chunkSize), pool: pool}
	}
	return pool
}

// fill gets a chunk for one holder and reads into it until it is full or r ends,
// with r's own error. The chunk is nil when nothing was read.
func fill(pool *sync.Pool, r io.Reader) (*chunk, error) {
	c, _ := pool.Get().(*chunk)
	c.buf = c.buf[:0]
	var err error
	for idle := 0; len(c.buf) < chunkSize && err == nil; {
		var n int
		n, err = r.Read(c.buf[len(c.buf):chunkSize])
		c.buf = c.buf[:len(c.buf)+n]
		if n > 0 {
			idle = 0
		} else if idle++; idle == maxIdleReads && err == nil {
			err = io.ErrNoProgress
		}
	}
	if len(c.buf) == 0 {
		pool.Put(c)
		return nil, err
	}
	c.refs.Store(1)
	return c, err
}

func (c *chunk) release() {
	if c.refs.Add(-1) == 0 {
		c.pool.Put(c)
	}
}

// stream carries chunks from one stage to the next and, at its end, whether it
// ended as it should.
type stream struct {
	chunks chan *chunk
	err    error // set before chunks is closed; nil at the true end
}

func newStream() *stream { return &stream{chunks: make(chan *chunk, streamDepth)} }

// send hands c over, or releases it when ctx ends first.
func (s *stream) send(ctx context.Context, c *chunk) error {
	select {
	case s.chunks <- c:
		return nil
	case <-ctx.Done():
		c.release()
		return context.Cause(ctx)
	}
}

// end says that nothing more comes. With an error the reader fails with it: it
// must not take a cut stream for a short one.
func (s *stream) end(err error) {
	s.err = err
	close(s.chunks)
}

// drain takes everything that still comes and reports whether that was anything.
func (s *stream) drain() (any bool) {
	for c := range s.chunks {
		c.release()
		any = true
	}
	return any
}

// reader reads a stream as bytes. It is used by one goroutine.
type reader struct {
	s    *stream
	c    *chunk
	rest []byte
}

// Read returns io.EOF only at the true end of the stream.
func (r *reader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if !r.next() {
			if r.s.err != nil {
				return 0, r.s.err
			}
			return 0, io.EOF
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *reader) next() bool {
	if r.c != nil {
		r.c.release()
		r.c, r.rest = nil, nil
	}
	c, ok := <-r.s.chunks
	if ok {
		r.c, r.rest = c, c.buf
	}
	return ok
}

// drain discards the rest of the stream and reports whether there was any.
func (r *reader) drain() bool {
	left := len(r.rest) > 0
	if r.c != nil {
		r.c.release()
		r.c, r.rest = nil, nil
	}
	return r.s.drain() || left
}
