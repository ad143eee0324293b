// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// counted counts the connections that a server has taken.
type counted struct {
	net.Listener
	taken atomic.Int64
}

func (c *counted) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err == nil {
		c.taken.Add(1)
	}
	return conn, err
}

// Where a port of loopback is configured, every container reaches it. Connections that say nothing, of which one
// client opens as many as it can, do not take the descriptors of the process that serves the guest's other sockets.
func TestConnectionsAreBounded(t *testing.T) {
	raw, err := ListenLoopback(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &counted{Listener: raw}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(ctx, l, &UnwrapService{Unwrapper: &Unwrapper{Keys: oneKey(nil)}, Log: slog.New(slog.DiscardHandler)}, slog.New(slog.DiscardHandler))
	}()
	var conns []net.Conn
	for range 2 * maxConnections {
		c, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for end := time.Now().Add(5 * time.Second); l.taken.Load() < maxConnections && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for those beyond it, if nothing stops them
	if n := l.taken.Load(); n != maxConnections {
		t.Errorf("%d connections taken, want %d", n, maxConnections)
	}
	for _, c := range conns {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
