// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// fakeLink is an interface with a server behind it: what it says to each query goes to the client, one after the other.
type fakeLink struct {
	server  func(at time.Duration, kind byte, xid uint32, unicast bool, q []byte) [][]byte
	began   time.Time
	noPort  bool // nobody gets port 68
	queries []sent
}

type sent struct {
	at      time.Duration
	kind    byte
	unicast bool
}

type fakeConn struct {
	l       *fakeLink
	unicast bool
	in      chan []byte
	closed  chan struct{}
}

func (l *fakeLink) open(unicast bool) (Conn, error) {
	return &fakeConn{l, unicast, make(chan []byte, 100), make(chan struct{})}, nil
}

func (l *fakeLink) Broadcast(netip.Addr) (Conn, error) { return l.open(false) }

func (l *fakeLink) Unicast(netip.Addr, netip.Addr) (Conn, error) {
	if l.noPort {
		return nil, errors.New("address in use")
	}
	return l.open(true)
}

func (c *fakeConn) Send(q []byte) error {
	at, kind := time.Since(c.l.began), q[headerLen+2]
	c.l.queries = append(c.l.queries, sent{at, kind, c.unicast})
	for _, b := range c.l.server(at, kind, binary.BigEndian.Uint32(q[4:]), c.unicast, q) {
		c.in <- b
	}
	return nil
}

func (c *fakeConn) Receive(deadline time.Time) ([]byte, error) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	select {
	case b := <-c.in:
		return b, nil
	case <-timer.C:
		return nil, os.ErrDeadlineExceeded
	case <-c.closed:
		return nil, net.ErrClosed
	}
}

func (c *fakeConn) Close() error {
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

// server answers as one does that keeps to the protocol.
func goodServer(_ time.Duration, kind byte, xid uint32, _ bool, _ []byte) [][]byte {
	return [][]byte{reply(map[byte]byte{discover: offer, request: ack}[kind], xid, testMAC, "192.0.2.9")}
}

func TestAcquire(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server func(at time.Duration, kind byte, xid uint32, unicast bool, q []byte) [][]byte
		want   error // nil is a lease
		also   error
		took   time.Duration // at most
	}{
		{"plain", goodServer, nil, nil, 0},
		{"late", func(at time.Duration, kind byte, xid uint32, u bool, q []byte) [][]byte {
			if at < 7*time.Second {
				return nil
			}
			return goodServer(at, kind, xid, u, q)
		}, nil, nil, 10 * time.Second},
		{"never", func(time.Duration, byte, uint32, bool, []byte) [][]byte { return nil }, ErrNoOffer, nil, offerTime},
		{"garbage", func(time.Duration, byte, uint32, bool, []byte) [][]byte {
			return [][]byte{{1, 2, 3}, make([]byte, 300)}
		}, ErrNoOffer, ErrRefused, offerTime},
		{"another query's", func(_ time.Duration, _ byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(offer, xid+1, testMAC, "192.0.2.9")}
		}, ErrNoOffer, nil, offerTime},
		{"another machine's", func(_ time.Duration, _ byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(offer, xid, MAC{1}, "192.0.2.9")}
		}, ErrNoOffer, nil, offerTime},
		{"acknowledged unasked", func(_ time.Duration, _ byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(ack, xid, testMAC, "192.0.2.9")}
		}, ErrNoOffer, nil, offerTime},
		{"insane, and a good one behind", func(at time.Duration, kind byte, xid uint32, u bool, q []byte) [][]byte {
			return append([][]byte{reply(offer, xid, testMAC, "127.0.0.1")}, goodServer(at, kind, xid, u, q)...)
		}, nil, nil, 0},
		{"insane alone", func(_ time.Duration, _ byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(offer, xid, testMAC, "192.0.2.9", option{optMask, number(0)})}
		}, ErrNoOffer, ErrRefused, offerTime},
		{"offer without confirmation", func(_ time.Duration, kind byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(offer, xid, testMAC, "192.0.2.9")}
		}, ErrNoAck, nil, ackTime},
		{"confirmed by another server", func(_ time.Duration, kind byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(offer, xid, testMAC, "192.0.2.9"), reply(ack, xid, testMAC, "192.0.2.9", option{optServer, addresses("192.0.2.2")})}
		}, ErrNoAck, nil, ackTime},
		{"another address confirmed", func(_ time.Duration, kind byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(offer, xid, testMAC, "192.0.2.9"), reply(ack, xid, testMAC, "192.0.2.10")}
		}, ErrNoAck, nil, ackTime},
		{"taken back", func(_ time.Duration, kind byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(map[byte]byte{discover: offer, request: nak}[kind], xid, testMAC, "192.0.2.9")}
		}, ErrNak, nil, 0},
		{"worse when confirmed", func(_ time.Duration, kind byte, xid uint32, _ bool, _ []byte) [][]byte {
			return [][]byte{reply(map[byte]byte{discover: offer, request: ack}[kind], xid, testMAC, "192.0.2.9", option{optRouter, addresses(map[byte]string{discover: "192.0.2.1", request: "127.0.0.1"}[kind])})}
		}, ErrNoAck, ErrRefused, ackTime},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				link := &fakeLink{server: tt.server, began: time.Now()}
				l, err := (&Client{MAC: testMAC, Link: link}).Acquire(t.Context())
				if tt.want == nil && (err != nil || l.Address != netip.MustParsePrefix("192.0.2.9/24")) {
					t.Errorf("got %+v, %v", l, err)
				}
				if tt.want != nil && (!errors.Is(err, tt.want) || tt.also != nil && !errors.Is(err, tt.also) || tt.also == nil && errors.Is(err, ErrRefused)) {
					t.Errorf("got %+v, %v, want %v", l, err, tt.want)
				}
				if took := time.Since(link.began); took > tt.took {
					t.Errorf("it took %v", took)
				}
				if len(link.queries) > 16 {
					t.Errorf("%d queries in one attempt", len(link.queries))
				}
			})
		})
	}
}

// TestAcquireEnds: the guest is switched off while it waits.
func TestAcquireEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		link := &fakeLink{server: func(time.Duration, byte, uint32, bool, []byte) [][]byte { return nil }, began: time.Now()}
		if _, err := (&Client{MAC: testMAC, Link: link}).Acquire(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(link.began) > 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(link.began))
		}
	})
}

func TestExtend(t *testing.T) {
	answers := func(kind byte, yours string, onlyBroadcast bool, changed ...option) func(time.Duration, byte, uint32, bool, []byte) [][]byte {
		return func(_ time.Duration, _ byte, xid uint32, unicast bool, q []byte) [][]byte {
			if onlyBroadcast && unicast {
				return nil
			}
			return [][]byte{reply(kind, xid, testMAC, yours, changed...)}
		}
	}
	silent := func(time.Duration, byte, uint32, bool, []byte) [][]byte { return nil }
	other := option{optServer, addresses("192.0.2.2")}
	for _, tt := range []struct {
		name   string
		server func(time.Duration, byte, uint32, bool, []byte) [][]byte
		noPort bool
		want   error
		yours  string
		took   time.Duration
	}{
		{"renewed", answers(ack, "192.0.2.9", false), false, nil, "192.0.2.9", 30 * time.Minute},
		{"renewed to another address", answers(ack, "192.0.2.77", false), false, nil, "192.0.2.77", 30 * time.Minute},
		{"rebound", answers(ack, "192.0.2.9", true), false, nil, "192.0.2.9", 52*time.Minute + 30*time.Second},
		{"the port is a workload's", answers(ack, "192.0.2.9", false), true, nil, "192.0.2.9", 52*time.Minute + 30*time.Second},
		{"another server may only rebind", answers(ack, "192.0.2.9", false, other), false, nil, "192.0.2.9", 52*time.Minute + 30*time.Second},
		{"taken back", answers(nak, "0.0.0.0", false), false, ErrNak, "", 30 * time.Minute},
		{"expired", silent, false, ErrExpired, "", time.Hour},
		{"renewed with what is refused", answers(ack, "127.0.0.9", false), false, ErrExpired, "", time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				link := &fakeLink{server: goodServer, began: time.Now()}
				c := &Client{MAC: testMAC, Link: link}
				first, err := c.Acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				link.server, link.noPort, link.queries = tt.server, tt.noPort, nil
				next, err := c.Extend(t.Context(), first)
				if !errors.Is(err, tt.want) || err == nil && next.Address.Addr() != ip(tt.yours) {
					t.Errorf("got %+v, %v", next, err)
				}
				if took := time.Since(link.began); took != tt.took {
					t.Errorf("it took %v, want %v", took, tt.took)
				}
				for i, q := range link.queries {
					if before := link.queries[max(i-1, 0)]; i > 0 && q.unicast == before.unicast && q.at-before.at < minAgain || q.kind != request {
						t.Errorf("queries %v", link.queries)
					}
				}
				if err == nil && next.Obtained.Before(first.Obtained.Add(tt.took)) {
					t.Error("the new lease counts from the old one")
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) { // a lease without an end
		ctx, cancel := context.WithTimeout(t.Context(), 1000*time.Hour)
		defer cancel()
		link := &fakeLink{}
		if _, err := (&Client{Link: link}).Extend(ctx, Lease{}); !errors.Is(err, context.DeadlineExceeded) || len(link.queries) > 0 {
			t.Errorf("%v, %d queries", err, len(link.queries))
		}
	})
}
