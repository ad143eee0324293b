// SPDX-License-Identifier: Apache-2.0

package frames

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"google.golang.org/protobuf/proto"
)

const (
	// idleMax bounds the goroutines that wait for the next request. One that has run keeps the stack that handling
	// takes; a new one grows it again each time.
	idleMax    = 8
	stopPoll   = 2 * time.Millisecond
	acceptWait = 100 * time.Millisecond // after a failure that may pass, such as too many open files
)

// Config is what a [Server] needs. Methods and Intercept are required.
type Config struct {
	// Methods are the handlers by service and name.
	Methods map[string]map[string]ttrpc.Method
	// Intercept runs every handler. It must not panic, and the status of its errors is what the peer reads; of an
	// error without one it reads nothing.
	Intercept ttrpc.UnaryServerInterceptor
	// Admit says whether a peer may speak at all; nil lets every one.
	Admit func(net.Conn) bool
	// Connections is how many there may be at a time. One too many is closed at once: a connection of ttrpc stays
	// for long, so waiting for a place may be for ever.
	Connections int
}

// Server answers unary requests.
type Server struct {
	cfg  Config
	next chan call     // to a worker that has nothing to do
	done chan struct{} // closed when the server has stopped
	idle chan struct{} // a token for each worker that waits
	// large lends buffers for messages that are larger than a connection's own.
	large sync.Pool

	mu        sync.Mutex
	listeners map[net.Listener]struct{} // guarded by mu; nil once stopping
	conns     map[*conn]struct{}        // guarded by mu
	gone      sync.WaitGroup            // readers of the connections
}

// Unary makes a handler of a typed method. R is a generated message.
func Unary[R any, P interface {
	*R
	proto.Message
}, Q proto.Message](f func(context.Context, P) (Q, error)) ttrpc.Method {
	return func(ctx context.Context, decode func(any) error) (any, error) {
		req := P(new(R))
		if err := decode(req); err != nil {
			return nil, err
		}
		return f(ctx, req)
	}
}

// NewServer builds a server that listens nowhere yet. [Server.Stop] must follow.
func NewServer(c Config) *Server {
	return &Server{
		cfg:       c,
		next:      make(chan call),
		done:      make(chan struct{}),
		idle:      make(chan struct{}, idleMax),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}
}

// Serve answers whom l lets in, and closes l. It returns nil once Stop has been called, or the listener's error.
// Handlers have contexts of ctx.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer l.Close()
	s.mu.Lock()
	stopped := s.listeners == nil
	if !stopped {
		s.listeners[l] = struct{}{}
	}
	s.mu.Unlock()
	if stopped {
		return nil
	}
	for {
		nc, err := l.Accept()
		if err == nil {
			s.adopt(ctx, nc)
			continue
		}
		if s.stopping() {
			return nil
		}
		passing, ok := errors.AsType[interface {
			error
			Temporary() bool
		}](err)
		if !ok || !passing.Temporary() {
			return err
		}
		time.Sleep(acceptWait)
	}
}

func (s *Server) stopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listeners == nil
}

// adopt serves a connection, unless its peer is a stranger or one too many.
func (s *Server) adopt(ctx context.Context, nc net.Conn) {
	if s.cfg.Admit != nil && !s.cfg.Admit(nc) {
		_ = nc.Close() // the peer sees its connection closed and is told no more
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listeners == nil || len(s.conns) >= s.cfg.Connections {
		_ = nc.Close()
		return
	}
	c := newConn(ctx, nc, &s.large)
	s.conns[c] = struct{}{}
	s.gone.Go(func() {
		s.read(c)
		c.shut()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
	})
}

// read hands out a connection's requests until it ends.
func (s *Server) read(c *conn) {
	for {
		k, err := c.request()
		if err != nil {
			return
		}
		if k.refused != nil {
			s.answer(k)
			continue
		}
		select {
		case s.next <- k:
		default:
			go s.work(k)
		}
	}
}

// work answers a request, and others as long as few enough workers wait for them.
func (s *Server) work(k call) {
	for {
		s.answer(k)
		k = call{} // nothing of it is kept while the worker waits
		select {
		case s.idle <- struct{}{}:
		default:
			return
		}
		select {
		case k = <-s.next:
			<-s.idle
		case <-s.done:
			return
		}
	}
}

// Stop closes the listeners, waits until no request is without its answer, then until the peers have closed their
// connections, and ends what is left, with the handlers' contexts. It waits no longer than ctx lives and, for the
// peers, no longer than linger. A handler that does not mind its context is not waited for. Call it once.
func (s *Server) Stop(ctx context.Context, linger time.Duration) {
	s.mu.Lock()
	for l := range s.listeners {
		_ = l.Close() // Serve returns
	}
	s.listeners = nil
	s.mu.Unlock()
	until(ctx, func() bool { n, _ := s.Pending(); return n == 0 })
	if linger > 0 {
		// Behind a vsock an answer that was written is not yet delivered, and a machine that is switched off loses it.
		// So the peers close first.
		s.each((*conn).finish)
		wait, cancel := context.WithTimeout(ctx, linger)
		until(wait, func() bool { return s.each(func(*conn) {}) == 0 })
		cancel()
	}
	s.each((*conn).shut)
	s.gone.Wait()
	close(s.done)
}

// each calls f for every connection and counts them.
func (s *Server) each(f func(*conn)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
	return len(s.conns)
}

func until(ctx context.Context, over func() bool) {
	for !over() && ctx.Err() == nil {
		time.Sleep(stopPoll)
	}
}

// Pending counts the requests whose answer has not been written, and the bytes of their messages.
func (s *Server) Pending() (requests int, size int64) {
	s.each(func(c *conn) {
		requests += int(c.requests.Load())
		size += c.bytes.Load()
	})
	return requests, size
}
