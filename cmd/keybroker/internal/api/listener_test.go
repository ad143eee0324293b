// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"
)

// One address opens as many connections as it may; the next is closed, and is taken
// once another is gone.
func TestConnectionsOfOneAddress(t *testing.T) {
	b := newBroker(t)
	addr, stop := startServing(t, b)
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close() // or the server would wait for their headers
		}
		stop()
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		must(t, err)
		all = append(all, c)
		return c
	}
	// closed waits up to d for the other side to hang up.
	closed := func(c net.Conn, d time.Duration) bool {
		must(t, c.SetReadDeadline(time.Now().Add(d)))
		_, err := c.Read(make([]byte, 1))
		return !errors.Is(err, os.ErrDeadlineExceeded)
	}
	held := make([]net.Conn, maxPerSource)
	for i := range held {
		held[i] = dial()
	}
	if !closed(dial(), 2*time.Second) {
		t.Fatal("a connection over the limit stays open")
	}
	if closed(held[0], 10*time.Millisecond) {
		t.Fatal("a connection within the limit was closed")
	}
	held[0].Close()
	for deadline := time.Now().Add(2 * time.Second); closed(dial(), 50*time.Millisecond); {
		if time.Now().After(deadline) {
			t.Fatal("the place of a closed connection is not given back")
		}
	}
}

func TestPlacesAreGivenBackOnce(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer inner.Close()
	l := newSourceListener(inner, 2)
	for range 2 {
		c, err := net.Dial("tcp", inner.Addr().String())
		must(t, err)
		defer c.Close()
	}
	first, err := l.Accept()
	must(t, err)
	second, err := l.Accept()
	must(t, err)
	must(t, first.Close())
	first.Close()
	if len(l.open) != 1 || l.open[sourceAddr(second.RemoteAddr().String())] != 1 {
		t.Errorf("open is %v", l.open)
	}
	must(t, second.Close())
	if len(l.open) != 0 {
		t.Errorf("open is %v", l.open)
	}
}
