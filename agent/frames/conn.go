// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Frames of ttrpc (containerd/ttrpc PROTOCOL.md): length and stream id in big-endian order, type, flags, message.
const (
	frameHeaderSize = 10
	frameRequest    = 1       // the only type that a client of unary methods sends
	frameResponse   = 2       // the only type that it gets
	messageSizeMax  = 4 << 20 // the protocol's own limit
)

// Limits of one connection. A peer that stays within them can hold a connection for ever.
const (
	firstRequestTimeout = 60 * time.Second // a peer that says nothing must not keep one of the places
	frameTimeout        = 30 * time.Second // from a frame's first byte to its last
	writeTimeout        = 30 * time.Second // for a peer that stops reading its answers
	pendingMax          = 8192             // unanswered requests: 3 waiting ones for each of 1000 containers, and room
)

// MaxPending bounds the messages of a connection's unanswered requests, in bytes: one of the largest and a flow of
// ordinary ones.
const MaxPending = 8 << 20

// conn reads requests and writes answers.
type conn struct {
	net    net.Conn
	ctx    context.Context // ends with the connection, for its handlers and for a reader that waits for slots or budget
	cancel context.CancelFunc

	// Reading side, used by one goroutine.
	in     *bufio.Reader
	large  *sync.Pool // of *[]byte, for messages that in has no room for
	spoken bool
	timed  bool // a read deadline is set

	writing sync.Mutex
	broken  bool // guarded by writing

	mu   sync.Mutex
	open map[uint32]struct{} // guarded by mu: stream ids of unanswered requests

	slots    *semaphore.Weighted // unanswered requests
	budget   *semaphore.Weighted // bytes of unanswered requests
	requests atomic.Int64        // what is taken of slots
	bytes    atomic.Int64        // and of budget
}

// call is one request.
type call struct {
	conn *conn
	id   uint32
	size int64          // taken of the budget
	req  *ttrpc.Request // nil: refused says why there is none
	// refused is the answer to a request that is no good.
	refused *status.Status
}

func newConn(ctx context.Context, nc net.Conn, large *sync.Pool) *conn {
	ctx, cancel := context.WithCancel(ctx)
	return &conn{
		net:    nc,
		ctx:    ctx,
		cancel: cancel,
		in:     bufio.NewReader(nc),
		open:   make(map[uint32]struct{}),
		large:  large,
		slots:  semaphore.NewWeighted(pendingMax),
		budget: semaphore.NewWeighted(MaxPending),
	}
}

// request waits for the next request, however long, and takes what it needs of the limits.
func (c *conn) request() (call, error) {
	id, size, whole, err := c.header()
	if err != nil {
		return call{}, err
	}
	k := call{conn: c, id: id, size: int64(size)}
	if size > messageSizeMax {
		k.size = 0 // the message is thrown away unread
	}
	if err := c.take(id, k.size); err != nil {
		return call{}, err
	}
	if !whole { // again: take may have waited
		if err := c.readUntil(time.Now().Add(frameTimeout)); err != nil {
			return call{}, err
		}
	}
	if size > messageSizeMax {
		k.refused = status.New(codes.ResourceExhausted, fmt.Sprintf("message of %d bytes, want at most %d", size, messageSizeMax))
		_, err := c.in.Discard(int(size))
		return k, err
	}
	k.req = new(ttrpc.Request)
	bad, err := c.message(int(size), whole, k.req)
	if bad {
		k.req, k.refused = nil, malformed()
	}
	return k, err
}

// header reads a frame's header. whole says that the frame has been read from the socket as a whole.
func (c *conn) header() (id, size uint32, whole bool, err error) {
	wait := time.Time{}
	if !c.spoken {
		wait = time.Now().Add(firstRequestTimeout)
	}
	if err := c.readUntil(wait); err != nil {
		return 0, 0, false, err
	}
	if _, err := c.in.Peek(1); err != nil {
		return 0, 0, false, err
	}
	if c.in.Buffered() < frameHeaderSize {
		if err := c.readUntil(time.Now().Add(frameTimeout)); err != nil {
			return 0, 0, false, err
		}
	}
	h, err := c.in.Peek(frameHeaderSize)
	if err != nil {
		return 0, 0, false, err
	}
	size, id = binary.BigEndian.Uint32(h[0:]), binary.BigEndian.Uint32(h[4:])
	if h[8] != frameRequest {
		return 0, 0, false, fmt.Errorf("frame type %d", h[8])
	}
	if id%2 != 1 {
		return 0, 0, false, fmt.Errorf("stream id %d, want an odd one", id)
	}
	c.spoken = true
	if _, err := c.in.Discard(frameHeaderSize); err != nil {
		return 0, 0, false, err
	}
	return id, size, int64(c.in.Buffered()) >= int64(size), nil
}

// message reads and decodes a message.
func (c *conn) message(size int, whole bool, req *ttrpc.Request) (bad bool, err error) {
	if whole {
		b, err := c.in.Peek(size)
		if err != nil {
			return false, err
		}
		bad = proto.Unmarshal(b, req) != nil // copies what it keeps
		_, err = c.in.Discard(size)
		return bad, err
	}
	b, ok := c.large.Get().(*[]byte)
	if !ok {
		b = new([]byte)
	}
	defer c.large.Put(b)
	*b = slices.Grow((*b)[:0], size)[:size]
	if _, err := io.ReadFull(c.in, *b); err != nil {
		return false, err
	}
	return proto.Unmarshal(*b, req) != nil, nil
}

// readUntil sets or lifts the deadline of reads.
func (c *conn) readUntil(t time.Time) error {
	if t.IsZero() && !c.timed {
		return nil
	}
	c.timed = !t.IsZero()
	return c.net.SetReadDeadline(t)
}

// take waits until there is room for one more unanswered request. Stream ids need not rise: the protocol's text wants them
// to, but the tasks of a client in Rust (ttrpc-rust) take their ids before they queue for the socket, and overtake each
// other. One that is still unanswered would make two answers one.
func (c *conn) take(id uint32, size int64) error {
	c.mu.Lock()
	_, twice := c.open[id]
	c.open[id] = struct{}{}
	c.mu.Unlock()
	if twice {
		return fmt.Errorf("stream id %d of a request that is not answered yet", id)
	}
	if err := c.slots.Acquire(c.ctx, 1); err != nil {
		return err
	}
	if err := c.budget.Acquire(c.ctx, size); err != nil {
		return err
	}
	c.requests.Add(1)
	c.bytes.Add(size)
	return nil
}

// settle lets the id of a request be used again. It comes before the answer: who has that may use it.
func (c *conn) settle(id uint32) {
	c.mu.Lock()
	delete(c.open, id)
	c.mu.Unlock()
}

func (c *conn) release(size int64) {
	c.requests.Add(-1)
	c.bytes.Add(-size)
	c.budget.Release(size)
	c.slots.Release(1)
}

// write passes one frame on. A peer that does not take it loses the connection.
func (c *conn) write(frame []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if c.broken {
		return
	}
	err := c.net.SetWriteDeadline(time.Now().Add(writeTimeout))
	if err == nil {
		_, err = c.net.Write(frame)
	}
	if err != nil {
		c.broken = true
		c.shut()
	}
}

// finish says to the peer that nothing more is answered. It is for a peer whose requests are: what is answered later is
// lost. The connection ends when the peer closes it.
func (c *conn) finish() {
	if half, ok := c.net.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // of one that is gone already there is nothing to wait for
	}
}

// shut ends the connection and its handlers' contexts.
func (c *conn) shut() {
	c.cancel()
	_ = c.net.Close() // nothing is left to be lost: the peer is gone or unwanted
}
