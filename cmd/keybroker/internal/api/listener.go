// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net"
	"net/netip"
	"sync"
)

// sourceListener closes connections of an address that has enough of them open.
type sourceListener struct {
	net.Listener
	max int

	mu   sync.Mutex // guards open
	open map[netip.Prefix]int
}

func newSourceListener(l net.Listener, limit int) *sourceListener {
	return &sourceListener{Listener: l, max: limit, open: make(map[netip.Prefix]int)}
}

// Accept returns the next connection that is within the limit of its address.
func (l *sourceListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceAddr(c.RemoteAddr().String())
		if l.take(source) {
			return &sourceConn{Conn: c, done: sync.OnceFunc(func() { l.give(source) })}, nil
		}
		c.Close()
	}
}

func (l *sourceListener) take(source netip.Prefix) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[source] >= l.max {
		return false
	}
	l.open[source]++
	return true
}

func (l *sourceListener) give(source netip.Prefix) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[source]--; l.open[source] == 0 {
		delete(l.open, source)
	}
}

// sourceConn gives its place back when it is closed, however often that is.
type sourceConn struct {
	net.Conn
	done func()
}

func (c *sourceConn) Close() error {
	defer c.done()
	return c.Conn.Close()
}
