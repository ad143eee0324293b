// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
)

const (
	// offerTime and ackTime are how long one attempt to get a lease waits for each of the two answers.
	offerTime = 15 * time.Second
	ackTime   = 10 * time.Second
	// firstPause is before the second message; each further pause is twice as long, up to maxPause (RFC 2131, section 4.1,
	// begins with four seconds, of which nobody at a virtual network needs as many).
	firstPause = time.Second
	maxPause   = 8 * time.Second
	// minAgain is between two messages that renew or rebind (section 4.4.5).
	minAgain = time.Minute
)

// What was waited for in vain.
var (
	ErrNoOffer = errors.New("no DHCP server has made an offer that can be taken")
	ErrNoAck   = errors.New("the DHCP server has not confirmed what it offered")
	ErrNak     = errors.New("the DHCP server has taken the address back")
	ErrExpired = errors.New("no DHCP server has prolonged the lease")
)

// Conn carries messages between this client and servers. Who opened one closes it, from any goroutine; Receive returns
// an error then.
type Conn interface {
	Send(message []byte) error
	// Receive returns the next datagram for port 68, whatever it holds, or os.ErrDeadlineExceeded.
	Receive(deadline time.Time) ([]byte, error)
	Close() error
}

// Link opens connections on the one interface.
type Link interface {
	// Broadcast reaches all servers, with address from as the sender's; without one it is not valid.
	Broadcast(from netip.Addr) (Conn, error)
	// Unicast reaches one server from an address that the interface has.
	Unicast(from, server netip.Addr) (Conn, error)
}

// Client gets and keeps a lease. Its methods are called one at a time.
type Client struct {
	MAC  MAC
	Link Link
}

// Acquire makes one attempt of less than half a minute to get a lease. Its error wraps [ErrNoOffer], [ErrNoAck] or [ErrNak],
// and [ErrRefused] besides where an offer came that is not taken.
func (c *Client) Acquire(ctx context.Context) (Lease, error) {
	conn, err := c.Link.Broadcast(netip.Addr{})
	if err != nil {
		return Lease{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	q := query{kind: discover, xid: newID(), mac: c.MAC}
	offered, err := c.ask(ctx, conn, q, time.Now().Add(offerTime), doubling(), func(a answer) bool { return a.kind == offer })
	if ctx.Err() != nil {
		return Lease{}, context.Cause(ctx)
	}
	if err != nil {
		return Lease{}, missed(ErrNoOffer, err)
	}
	q.kind, q.requested, q.server = request, offered.Address.Addr(), offered.Server
	l, err := c.ask(ctx, conn, q, time.Now().Add(ackTime), doubling(), func(a answer) bool {
		return (a.kind == ack && a.yours == q.requested || a.kind == nak) && a.server == q.server
	})
	if err == nil || errors.Is(err, ErrNak) || ctx.Err() != nil {
		return l, err
	}
	return Lease{}, missed(ErrNoAck, err)
}

// Extend waits until l is to be renewed and returns the lease that follows, which may have another address. On [ErrNak] and
// [ErrExpired] the address must not be used any more.
func (c *Client) Extend(ctx context.Context, l Lease) (Lease, error) {
	if l.Expires == 0 {
		<-ctx.Done()
		return Lease{}, context.Cause(ctx)
	}
	q := query{kind: request, xid: newID(), mac: c.MAC, client: l.Address.Addr()}
	for _, phase := range []struct {
		begin, end time.Duration
		open       func() (Conn, error)
		from       func(a answer) bool
	}{
		{l.Renew, l.Rebind, func() (Conn, error) { return c.Link.Unicast(q.client, l.Server) }, func(a answer) bool { return a.server == l.Server }},
		{l.Rebind, l.Expires, func() (Conn, error) { return c.Link.Broadcast(q.client) }, func(answer) bool { return true }},
	} {
		if err := sleep(ctx, l.Obtained.Add(phase.begin)); err != nil {
			return Lease{}, err
		}
		conn, err := phase.open()
		if err != nil {
			continue // a workload may have taken the port; the other way is still there
		}
		next, err := c.prolong(ctx, conn, q, l.Obtained.Add(phase.end), phase.from)
		if err == nil || errors.Is(err, ErrNak) || ctx.Err() != nil {
			return next, err
		}
	}
	if err := sleep(ctx, l.Obtained.Add(l.Expires)); err != nil {
		return Lease{}, err
	}
	return Lease{}, ErrExpired
}

func (c *Client) prolong(ctx context.Context, conn Conn, q query, until time.Time, from func(answer) bool) (Lease, error) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	half := func() time.Duration { return max(time.Until(until)/2, minAgain) }
	return c.ask(ctx, conn, q, until, half, func(a answer) bool { return (a.kind == ack || a.kind == nak) && from(a) })
}

// ask sends q, and again after each pause, until an answer that is wanted makes a lease. Answers for others, for another
// query and such as make none are passed over; the last of these is in the error. NAK ends it.
func (c *Client) ask(ctx context.Context, conn Conn, q query, until time.Time, pause func() time.Duration, wanted func(answer) bool) (Lease, error) {
	var refused error
	var asked, again time.Time
	for {
		now := time.Now()
		switch {
		case ctx.Err() != nil:
			return Lease{}, context.Cause(ctx)
		case !now.Before(until):
			if refused == nil {
				refused = os.ErrDeadlineExceeded
			}
			return Lease{}, refused
		case !now.Before(again):
			// A message that cannot be sent now is as good as one that is lost on its way.
			if err := conn.Send(q.bytes()); err != nil {
				refused = err
			}
			asked, again = now, now.Add(pause())
		}
		end := until
		if again.Before(until) {
			end = again
		}
		b, err := conn.Receive(end)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			if ctx.Err() != nil {
				return Lease{}, context.Cause(ctx)
			}
			refused = err
			if err := sleep(ctx, end); err != nil { // an interface that is down
				return Lease{}, err
			}
			continue
		}
		a, err := parse(b)
		if err == nil && (a.xid != q.xid || a.mac != c.MAC || !wanted(a)) {
			continue
		}
		if err != nil {
			refused = fmt.Errorf("%w: %w", ErrRefused, err)
			continue
		}
		if a.kind == nak {
			return Lease{}, ErrNak
		}
		l, err := judge(a, asked)
		if err == nil {
			return l, nil
		}
		refused = err
	}
}

// missed names what did not come, and what came instead.
func missed(what, err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return what
	}
	return fmt.Errorf("%w: %w", what, err)
}

// doubling returns the pauses of a first lease.
func doubling() func() time.Duration {
	next := firstPause
	return func() time.Duration {
		p := next
		next = min(2*next, maxPause)
		return p
	}
}

func sleep(ctx context.Context, until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func newID() uint32 {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint32(b[:])
}
