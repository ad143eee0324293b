// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Frames of ttrpc (containerd/ttrpc PROTOCOL.md): length and stream id in big-endian order, type, flags, message.
const (
	frameHeaderSize = 10
	frameRequest    = 1       // the only type that a client of unary methods sends
	messageSizeMax  = 4 << 20 // the protocol's own limit
)

// Limits of one connection. A peer that stays within them can hold a connection for ever.
const (
	firstRequestTimeout = 60 * time.Second // a peer that says nothing must not keep one of connectionsMax places
	frameTimeout        = 30 * time.Second // from a frame's first byte to its last
	writeTimeout        = 30 * time.Second // for a peer that stops reading its answers
	pendingMax          = 8192             // unanswered requests: 3 waiting ones for each of 1000 containers, and room
	gatherMax           = 80 << 10         // of an answer that goes out in one write: a full stream buffer and what frames it
)

// MaxPending bounds the messages of a connection's unanswered requests, in bytes: one of the largest and a flow of
// ordinary ones.
const MaxPending = 8 << 20

// Conn stands between the socket and the ttrpc library. The library hands any frame to a goroutine of its own, and
// some of them end the process or never end: a data frame on a unary call is a nil dereference, a read error other
// than end-of-file leaves the connection open for good, and nothing bounds unanswered requests. So Conn lets only
// whole request frames with rising odd stream ids through, bounds what is unanswered, and reports every failure as
// the end of the stream.
type Conn struct {
	net.Conn
	in     *bufio.Reader
	slots  *semaphore.Weighted // unanswered requests
	budget *semaphore.Weighted // bytes of unanswered requests
	ctx    context.Context     // ends with the connection, to free a reader that waits for slots or budget
	cancel context.CancelFunc
	closed func() // told once

	// Reading side, used by the library's one reader.
	header  []byte // what is left of the present frame's header
	remain  int64  // what is left of its message
	lastID  uint32
	spoken  bool
	headers [frameHeaderSize]byte

	timed bool // a read deadline is set

	// Writing side, used by the library's one writer.
	gathered []byte   // of the present answer, which the library hands over in parts
	answered []uint32 // requests whose answer ends in what is being written
	out      [frameHeaderSize]byte
	outHave  int
	outLeft  uint32
	broken   bool

	mu      sync.Mutex
	pending map[uint32]int64 // guarded by mu: budget held by each unanswered request
	once    sync.Once
}

// New puts c under the limits. closed is called once, when the library lets go of the connection.
func New(c net.Conn, closed func()) *Conn {
	ctx, cancel := context.WithCancel(context.Background())
	return &Conn{
		Conn:    c,
		in:      bufio.NewReader(c),
		slots:   semaphore.NewWeighted(pendingMax),
		budget:  semaphore.NewWeighted(MaxPending),
		ctx:     ctx,
		cancel:  cancel,
		closed:  closed,
		pending: make(map[uint32]int64),
	}
}

// Read returns the next bytes of acceptable frames.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.read(p)
	if err != nil {
		return n, io.EOF
	}
	return n, nil
}

func (c *Conn) read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(c.header) == 0 && c.remain == 0 {
		if err := c.nextFrame(); err != nil {
			return 0, err
		}
	}
	if len(c.header) > 0 {
		n := copy(p, c.header)
		c.header = c.header[n:]
		return n, nil
	}
	n, err := c.in.Read(p[:min(int64(len(p)), c.remain)])
	c.remain -= int64(n)
	return n, err
}

// nextFrame waits for a frame, however long, then for its header, and takes what the frame needs of the limits.
func (c *Conn) nextFrame() error {
	wait := time.Time{}
	if !c.spoken {
		wait = time.Now().Add(firstRequestTimeout)
	}
	if err := c.readUntil(wait); err != nil {
		return err
	}
	if _, err := c.in.Peek(1); err != nil {
		return err
	}
	whole := c.hasFrame()
	if !whole {
		if err := c.readUntil(time.Now().Add(frameTimeout)); err != nil {
			return err
		}
	}
	if _, err := io.ReadFull(c.in, c.headers[:]); err != nil {
		return err
	}
	size, id := binary.BigEndian.Uint32(c.headers[0:]), binary.BigEndian.Uint32(c.headers[4:])
	if c.headers[8] != frameRequest {
		return fmt.Errorf("frame type %d", c.headers[8])
	}
	if id%2 != 1 || id <= c.lastID {
		return fmt.Errorf("stream id %d after %d", id, c.lastID)
	}
	c.spoken, c.lastID = true, id
	c.header, c.remain = c.headers[:], int64(size)
	if size > messageSizeMax {
		size = 0 // the library discards the message unread and answers RESOURCE_EXHAUSTED
	}
	if err := c.take(id, int64(size)); err != nil {
		return err
	}
	if whole {
		return nil
	}
	return c.readUntil(time.Now().Add(frameTimeout)) // again: take may have waited
}

// hasFrame says that the next frame has been read from the socket as a whole.
func (c *Conn) hasFrame() bool {
	have := c.in.Buffered()
	if have < frameHeaderSize {
		return false
	}
	header, err := c.in.Peek(frameHeaderSize)
	return err == nil && int64(have) >= frameHeaderSize+int64(binary.BigEndian.Uint32(header))
}

// readUntil sets or lifts the deadline of reads.
func (c *Conn) readUntil(t time.Time) error {
	if t.IsZero() && !c.timed {
		return nil
	}
	c.timed = !t.IsZero()
	return c.SetReadDeadline(t)
}

// take waits until there is room for one more unanswered request.
func (c *Conn) take(id uint32, size int64) error {
	if err := c.slots.Acquire(c.ctx, 1); err != nil {
		return err
	}
	if err := c.budget.Acquire(c.ctx, size); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending[id] = size
	return nil
}

// Write passes answers on, each as a whole, and follows their framing to know which requests are answered. After a
// failure it swallows the rest, and the reading side tells the library that the peer is gone.
func (c *Conn) Write(p []byte) (int, error) {
	if c.broken {
		return len(p), nil
	}
	c.follow(p)
	var err error
	switch {
	case len(c.gathered)+len(p) > gatherMax:
		if err = c.send(c.gathered); err == nil {
			err = c.send(p)
		}
		c.gathered = c.gathered[:0]
	case len(c.answered) == 0:
		c.gathered = append(c.gathered, p...)
	default:
		c.gathered = append(c.gathered, p...)
		err = c.send(c.gathered)
		c.gathered = c.gathered[:0]
	}
	if err != nil {
		c.broken = true
		c.Shut()
		return len(p), nil
	}
	for _, id := range c.answered {
		c.release(id)
	}
	c.answered = c.answered[:0]
	return len(p), nil
}

func (c *Conn) send(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.Conn.Write(p)
	return err
}

// follow notes whose answers end in p.
func (c *Conn) follow(p []byte) {
	for len(p) > 0 {
		if c.outHave < frameHeaderSize {
			n := copy(c.out[c.outHave:], p)
			c.outHave += n
			p = p[n:]
			if c.outHave < frameHeaderSize {
				return
			}
			c.outLeft = binary.BigEndian.Uint32(c.out[0:])
		}
		n := min(int64(c.outLeft), int64(len(p)))
		c.outLeft -= uint32(n)
		p = p[n:]
		if c.outLeft == 0 {
			c.outHave = 0
			c.answered = append(c.answered, binary.BigEndian.Uint32(c.out[4:]))
		}
	}
}

// Pending counts the requests whose answer has not been written, and the bytes of their messages.
func (c *Conn) Pending() (requests int, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.pending {
		size += n
	}
	return len(c.pending), size
}

func (c *Conn) release(id uint32) {
	c.mu.Lock()
	size, ok := c.pending[id]
	delete(c.pending, id)
	c.mu.Unlock()
	if ok {
		c.budget.Release(size)
		c.slots.Release(1)
	}
}

// Finish says to the peer that nothing more is answered. It is for a peer whose requests are: what is answered later is
// lost. The connection ends when the peer closes it.
func (c *Conn) Finish() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // of one that is gone already there is nothing to wait for
	}
}

// Shut ends the connection without waiting for the library to let go of it.
func (c *Conn) Shut() {
	c.cancel()
	_ = c.Conn.Close() // nothing is left to be lost: the peer is gone or unwanted
}

// Close is called by the library when it is done with the connection.
func (c *Conn) Close() error {
	c.once.Do(func() {
		c.Shut()
		c.closed()
	})
	return nil
}
