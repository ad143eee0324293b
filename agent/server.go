// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sync/errgroup"

	"github.com/casemate/casemate/agent/frames"
)

const (
	connectionsMax = 16 // a runtime uses one or two; 16 with frames.MaxPending each fit a 256 MiB guest
	stopTimeout    = 3 * time.Second
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
type Server struct{ frames *frames.Server }

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
	return newServer(g, map[string]map[string]ttrpc.Method{
		agentService:  handlers,
		healthService: health{version: c.Version}.methods(),
	}), nil
}

func newServer(g *gate, methods map[string]map[string]ttrpc.Method) *Server {
	return &Server{frames: frames.NewServer(frames.Config{
		Methods: methods, Intercept: g.intercept, Admit: trusted, Connections: connectionsMax,
	})}
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
	group, failed := errgroup.WithContext(ctx)
	for _, l := range listeners {
		group.Go(func() error {
			if err := s.frames.Serve(context.WithoutCancel(ctx), l); err != nil {
				return fmt.Errorf("accepting on %s: %w", l.Addr(), err)
			}
			return nil
		})
	}
	group.Go(func() error {
		<-failed.Done() // ctx ended or a listener failed
		grace, done := context.WithTimeout(context.Background(), stopTimeout)
		defer done()
		s.frames.Stop(grace, lingerTime)
		return nil
	})
	return group.Wait()
}
