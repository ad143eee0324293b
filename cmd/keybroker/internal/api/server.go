// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"time"

	"golang.org/x/net/netutil"

	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/policy"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/token"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// Bounds of what a peer that sends slowly or not at all can hold.
const (
	headerTimeout = 5 * time.Second
	// readTimeout is 2 MiB on a line of 1 Mbit/s.
	readTimeout  = 20 * time.Second
	writeTimeout = 40 * time.Second
	// idleTimeout spans the steps of a handshake; a guest that pauses longer connects anew.
	idleTimeout = 5 * time.Second
	// maxHeader holds a bearer token of token.MaxSize.
	maxHeader = 48 << 10
	// maxConnections at once, each with at most one body of 2 MiB in memory; those beyond
	// wait in the kernel's queue.
	maxConnections = 512
	// maxPerSource of them from one address, so that one alone does not take them all.
	maxPerSource = 64

	// shutdownTimeout lets running requests end.
	shutdownTimeout = 10 * time.Second
	sweepInterval   = 10 * time.Second
)

// Config is what a Server is made of. All but AuthRate is required.
type Config struct {
	Store    *store.Store
	Issuer   *token.Issuer
	Verifier *verifier.Verifier
	Audit    *audit.Log
	Log      *slog.Logger
	// OwnerToken opens the owner API. The caller clears it after New.
	OwnerToken []byte
	// AuthRate is how many sessions one address may open a second; 0 means
	// DefaultAuthRate.
	AuthRate float64
}

// Server answers guests and owners. It is safe for concurrent use.
type Server struct {
	store    *store.Store
	issuer   *token.Issuer
	verifier *verifier.Verifier
	policies *policy.Cache
	audit    *audit.Log
	log      *slog.Logger

	ownerHash [sha256.Size]byte
	sessions  *sessions
	limiter   *limiter
	telling   *tellers
	ticketKey []byte
	admission *admission
	reading   chan struct{} // one slot for each body that is taken apart at a time
	verifying chan struct{} // and for each verification, which may take longer
	now       func() time.Time
}

// New checks c and loads what the store has registered.
func New(c Config) (*Server, error) {
	if c.Store == nil || c.Issuer == nil || c.Verifier == nil || c.Audit == nil || c.Log == nil {
		return nil, errors.New("starting keybroker: a part is missing")
	}
	if len(c.OwnerToken) == 0 {
		return nil, errors.New("starting keybroker: no owner token")
	}
	rate := c.AuthRate
	if rate == 0 {
		rate = DefaultAuthRate
	}
	if rate < 0 {
		return nil, fmt.Errorf("starting keybroker: auth rate is %v", rate)
	}
	key, err := ticketKey(c.Store)
	if err != nil {
		return nil, fmt.Errorf("starting keybroker: %w", err)
	}
	s := &Server{
		store:     c.Store,
		issuer:    c.Issuer,
		verifier:  c.Verifier,
		policies:  policy.NewCache(),
		audit:     c.Audit,
		log:       c.Log,
		ownerHash: sha256.Sum256(c.OwnerToken),
		sessions:  newSessions(),
		limiter:   newLimiter(rate),
		telling:   newTellers(),
		ticketKey: key,
		admission: newAdmission(),
		reading:   make(chan struct{}, runtime.GOMAXPROCS(0)),
		verifying: make(chan struct{}, runtime.GOMAXPROCS(0)),
		now:       time.Now,
	}
	if err := s.admission.load(c.Store); err != nil {
		return nil, fmt.Errorf("starting keybroker: %w", err)
	}
	return s, nil
}

// Serve answers on l until ctx ends, then lets running requests end. tlsConfig nil
// means plain HTTP. It closes l.
func (s *Server) Serve(ctx context.Context, l net.Listener, tlsConfig *tls.Config) error {
	srv := s.httpServer()
	l = netutil.LimitListener(newSourceListener(l, maxPerSource), maxConnections)
	if tlsConfig != nil {
		l = tls.NewListener(l, tlsConfig)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		s.sweepUntil(ctx)
	}()
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var err error
	select {
	case err = <-served:
	case <-ctx.Done():
		stopping, done := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer done()
		err = srv.Shutdown(stopping)
		<-served
	}
	cancel()
	<-swept
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}

// httpServer has a bound for everything that a peer can make it wait for or hold.
func (s *Server) httpServer() *http.Server {
	srv := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true) // each request is small; streams of HTTP/2 only add ways to hold resources
	return srv
}

// sweepUntil drops what is over its time and reports what was turned away.
func (s *Server) sweepUntil(ctx context.Context) {
	ticker := time.NewTicker(sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			s.sweep()
		}
	}
}

func (s *Server) sweep() {
	s.sessions.sweep(s.now())
	s.telling.sweep(s.now())
	if n := s.limiter.sweep(s.now()); n > 0 {
		r := audit.Record{Event: audit.Overload, Note: fmt.Sprintf("%d requests over the rate of their address", n)}
		if err := s.audit.Write(r); err != nil {
			s.log.Error("recording overload", "error", err)
		}
	}
}
