// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sync/errgroup"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/frames"
)

const (
	connectionsMax = 16 // a runtime uses one or two; 16 with frames.MaxPending each fit a 256 MiB guest
	stopTimeout    = 3 * time.Second
	answerPoll     = 2 * time.Millisecond
	lingerTime     = 500 * time.Millisecond
)

// Config is what a [Server] needs. All of it but Handlers is required.
type Config struct {
	Version string       // reported by Health.Version
	Door    *Door        // closed until the caller opens it
	Log     *slog.Logger // its lines may end on a console that the host reads
	// Handlers are the served methods of grpc.AgentService by name: exactly those
	// that the table lists. nil is for a guest that has nothing to serve: whatever
	// its door says, every request is refused.
	Handlers map[string]ttrpc.Method
}

// Server answers the sandbox API.
type Server struct {
	ttrpc *ttrpc.Server

	mu    sync.Mutex
	conns map[*frames.Conn]struct{} // guarded by mu; nil once stopping
	gone  sync.WaitGroup            // connections that the library still holds
}

// NewServer builds a server that listens nowhere yet.
func NewServer(c Config) (*Server, error) {
	if c.Version == "" || c.Door == nil || c.Log == nil {
		return nil, errors.New("building the agent's server: version, door and log are required")
	}
	g := &gate{methods: methods(), door: c.Door, log: c.Log}
	handlers, err := agentHandlers(g.methods, c.Handlers)
	if err != nil {
		return nil, fmt.Errorf("building the agent's server: %w", err)
	}
	server, err := ttrpc.NewServer(ttrpc.WithUnaryServerInterceptor(g.intercept))
	if err != nil {
		return nil, fmt.Errorf("building the agent's server: %w", err)
	}
	kata.RegisterTTRPCHealthService(server, health{version: c.Version})
	server.RegisterService(agentService, &ttrpc.ServiceDesc{Methods: handlers})
	return &Server{
		ttrpc: server,
		conns: make(map[*frames.Conn]struct{}),
	}, nil
}

// agentHandlers joins the served methods' handlers with refusing ones for the rest. The gate answers before those
// run; were it taken away, they would still refuse.
func agentHandlers(table map[string]method, served map[string]ttrpc.Method) (map[string]ttrpc.Method, error) {
	handlers := make(map[string]ttrpc.Method)
	for name, m := range table {
		short, ok := strings.CutPrefix(name, agentService+"/")
		if !ok {
			continue
		}
		reason := m.reason
		if m.served {
			if h := served[short]; h != nil {
				handlers[short] = h
				continue
			}
			if served != nil {
				return nil, fmt.Errorf("method %s has no handler", name)
			}
			reason = Reason{"not-set-up", "the guest could not be set up"}
		}
		handlers[short] = func(context.Context, func(any) error) (any, error) {
			return nil, refusal(m.request, reason)
		}
	}
	for short := range served {
		if m := table[agentService+"/"+short]; !m.served {
			return nil, fmt.Errorf("method %s is not served and has a handler", short)
		}
	}
	return handlers, nil
}

// Serve answers on every listener until ctx ends, then stops taking requests, gives the running ones
// three seconds to finish and cancels them. It closes the listeners, and returns nil after an orderly stop or
// the error of the listener that failed. It can be called once.
func (s *Server) Serve(ctx context.Context, listeners ...net.Listener) error {
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	group, failed := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			err := s.ttrpc.Serve(running, &listener{Listener: l, server: s})
			if errors.Is(err, ttrpc.ErrServerClosed) {
				return nil
			}
			return fmt.Errorf("accepting on %s: %w", l.Addr(), err)
		})
	}
	group.Go(func() error {
		<-failed.Done() // ctx ended or a listener failed
		s.stop(cancel)
		return nil
	})
	return group.Wait()
}

func (s *Server) stop(cancel context.CancelFunc) {
	grace, done := context.WithTimeout(context.Background(), stopTimeout)
	defer done()
	// The library takes a connection for idle while its first request is being handled, and would cut it off:
	// DestroySandbox, which ends the server, would not be answered.
	s.answered(grace)
	s.finish(grace)
	_ = s.ttrpc.Shutdown(grace) // its only error is the end of the grace period, which is dealt with here
	cancel()
	s.mu.Lock()
	left := s.conns
	s.conns = nil
	s.mu.Unlock()
	for c := range left {
		c.Shut()
	}
	s.gone.Wait()
}

// finish lets the peers close first. Behind a vsock an answer that was written is not yet delivered, and a machine that
// is switched off loses it.
func (s *Server) finish(ctx context.Context) {
	ctx, done := context.WithTimeout(ctx, lingerTime)
	defer done()
	s.mu.Lock()
	for c := range s.conns {
		c.Finish()
	}
	s.mu.Unlock()
	for s.connected() > 0 && ctx.Err() == nil {
		time.Sleep(answerPoll)
	}
}

func (s *Server) connected() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// answered waits until no request is without its answer, or ctx ends.
func (s *Server) answered(ctx context.Context) {
	for s.unanswered() > 0 && ctx.Err() == nil {
		time.Sleep(answerPoll)
	}
}

func (s *Server) unanswered() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		requests, _ := c.Pending()
		n += requests
	}
	return n
}

// adopt puts a connection under the server's limits, or returns nil when there is no room for it.
func (s *Server) adopt(nc net.Conn) *frames.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil || len(s.conns) >= connectionsMax {
		return nil
	}
	var c *frames.Conn
	c = frames.New(nc, func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.gone.Done()
	})
	s.conns[c] = struct{}{}
	s.gone.Add(1)
	return c
}

// listener hands only trusted peers to the library, each behind a [frames.Conn].
type listener struct {
	net.Listener
	server *Server
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		nc, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if trusted(nc) {
			if c := l.server.adopt(nc); c != nil {
				return c, nil
			}
		}
		_ = nc.Close() // a stranger, or one too many
	}
}
