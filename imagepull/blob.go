// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// stallBytes is what must arrive within the stall timeout, and what a connection
// must bring to count as progress. One that yields less, a byte a second say,
// stands still.
const stallBytes = 16 << 10

// blobReader reads one blob to its end over as many connections as it takes,
// each going on where the last one was cut. It enforces the declared size and
// verifies nothing else; whoever hashes its bytes hashes each of them once.
type blobReader struct {
	ctx     context.Context
	src     source
	digest  v1.Hash
	size    int64
	retrier retrier
	stall   time.Duration

	offset   int64 // of the next byte to hand out
	received int64 // over all connections, skipped bytes included
	failures int   // in a row without progress
	mark     int64 // offset when the last connection was opened
	conn     *connection
}

// Read returns io.EOF after exactly size bytes, ErrShortBlob or ErrLongBlob when
// the blob has another length.
func (b *blobReader) Read(p []byte) (int, error) {
	for {
		if b.conn == nil {
			if err := b.connect(); err != nil {
				return 0, err
			}
		}
		if left := b.size - b.offset; left < int64(len(p)) {
			p = p[:left+1] // one more shows that the blob is too long
		}
		n, err := b.conn.Read(p)
		b.offset += int64(n)
		b.received += int64(n)
		switch {
		case b.offset > b.size:
			return 0, fmt.Errorf("%w: want %d bytes", ErrLongBlob, b.size)
		case n > 0:
			return n, nil // a broken connection says so again
		case err == nil:
			continue
		case b.offset == b.size:
			return 0, io.EOF // whatever ended the connection, nothing is missing
		case errors.Is(err, io.EOF):
			return 0, fmt.Errorf("%w: got %d bytes, want %d", ErrShortBlob, b.offset, b.size)
		}
		if err := b.reconnect(err); err != nil {
			return 0, err
		}
	}
}

// Close ends the connection, if there is one. It returns nil.
func (b *blobReader) Close() error {
	if b.conn != nil {
		b.conn.close()
		b.conn = nil
	}
	return nil
}

// connect opens the blob at offset, trying again as the retrier says.
func (b *blobReader) connect() error {
	for {
		err := b.open()
		if err == nil {
			return nil
		}
		if err := b.pause(err); err != nil {
			return err
		}
	}
}

func (b *blobReader) reconnect(err error) error {
	_ = b.Close()
	if b.offset-b.mark >= stallBytes {
		b.failures = 0
	}
	return b.pause(classify(b.ctx, err))
}

func (b *blobReader) pause(err error) error {
	b.failures++
	return b.retrier.wait(b.ctx, b.failures, err)
}

func (b *blobReader) open() error {
	b.mark = b.offset
	c, start, length, err := dial(b.ctx, b.src, b.digest, b.offset, b.stall)
	if err != nil {
		return err
	}
	switch {
	case length >= 0 && length < b.size-start:
		c.close()
		return fmt.Errorf("%w: the server announces %d bytes from %d, want %d", ErrShortBlob, length, start, b.size-start)
	case length > b.size-start:
		c.close()
		return fmt.Errorf("%w: the server announces %d bytes from %d, want %d", ErrLongBlob, length, start, b.size-start)
	}
	// A server that ignores ranges starts over. The bytes up to offset were
	// hashed when they came first and are skipped, but only once in all: so no
	// byte is paid for more than twice.
	if start < b.offset {
		if b.received-b.size > b.size-b.offset {
			c.close()
			return fmt.Errorf("%w: cut again by a server without ranges", ErrTransport)
		}
		n, err := io.CopyN(io.Discard, c, b.offset-start)
		b.received += n
		if err != nil {
			c.close()
			return classify(b.ctx, err)
		}
	}
	b.conn = c
	return nil
}

// connection is one response body with a watchdog over its pace. Only time spent
// waiting for bytes counts, not the time their consumer takes.
type connection struct {
	body   io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	limit  time.Duration

	waited time.Duration // in the current window
	got    int           // in the current window
}

func dial(ctx context.Context, src source, digest v1.Hash, offset int64, limit time.Duration) (*connection, int64, int64, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	c := &connection{ctx: ctx, cancel: cancel, limit: limit}
	c.timer = time.AfterFunc(limit, func() {
		cancel(fmt.Errorf("%w: less than %d bytes in %s", ErrStalled, stallBytes, limit))
	})
	body, start, length, err := src.blob(ctx, digest, offset)
	c.timer.Stop()
	if err != nil {
		cancel(nil)
		return nil, 0, 0, err
	}
	c.body = body
	return c, start, length, nil
}

func (c *connection) Read(p []byte) (int, error) {
	began := time.Now()
	c.timer.Reset(c.limit - c.waited)
	n, err := c.body.Read(p)
	c.timer.Stop()
	c.waited += time.Since(began)
	c.got += n
	if c.got >= stallBytes {
		c.waited, c.got = 0, 0
	} else if c.waited >= c.limit {
		c.cancel(fmt.Errorf("%w: less than %d bytes in %s", ErrStalled, stallBytes, c.limit))
	}
	if err != nil && !errors.Is(err, io.EOF) && c.ctx.Err() != nil {
		err = context.Cause(c.ctx)
	}
	return n, err
}

func (c *connection) close() {
	c.cancel(nil)
	c.body.Close()
}
