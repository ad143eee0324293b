// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// Why a broker was not told of incidents.
var (
	// ErrNoSession says that there is neither a session nor a ticket to tell by: the next handshake changes that.
	ErrNoSession = errors.New("no session with the KBS")
	// ErrNotServed says that the broker takes no incidents and never will: it is another than keybroker.
	ErrNotServed = errors.New("the KBS takes no incidents")
)

// incidentsPath is keybroker's plugin for them; other brokers have none.
const incidentsPath = "incidents"

// Tell sends what evidence.Incidents.Encode wrote, once, over the session that there is, or that is being earned, or by
// the ticket of an earlier answer. It never makes a handshake. Errors wrap ErrNoSession, ErrNotServed or what a request
// fails with. Plain HTTP would show it to whoever is on the way: such a broker is told nothing.
func (c *Client) Tell(ctx context.Context, incidents []byte) error {
	if c.base.Scheme != "https" {
		return fmt.Errorf("telling of incidents: %w over plain HTTP", ErrNotServed)
	}
	err := c.tellBy(ctx, incidents)
	if err != nil {
		return fmt.Errorf("telling of incidents: %w", err)
	}
	return nil
}

func (c *Client) tellBy(ctx context.Context, incidents []byte) error {
	c.mu.Lock()
	ticket := c.ticket
	c.mu.Unlock()
	if ticket != "" {
		err := c.tell(ctx, newJar(c.base), []byte(ticket), incidents)
		if !errors.Is(err, ErrDenied) {
			return err
		}
		c.mu.Lock()
		c.ticket = ""
		c.mu.Unlock()
	}
	s := c.present(ctx)
	if s == nil {
		return ErrNoSession
	}
	err := c.tell(ctx, s.jar, s.token, incidents)
	if errors.Is(err, ErrDenied) {
		return fmt.Errorf("%w: %w", ErrNoSession, err)
	}
	return err
}

// present is the session that there is, or that is being earned; nil is none.
func (c *Client) present(ctx context.Context) *session {
	c.mu.Lock()
	s, f := c.current, c.running
	c.mu.Unlock()
	if s != nil && time.Now().Before(s.until) {
		return s
	}
	if f == nil {
		return nil
	}
	select {
	case <-f.done:
		return f.session
	case <-ctx.Done():
		return nil
	}
}

// tell is one request. Its answer is the ticket for the next.
func (c *Client) tell(ctx context.Context, j *jar, token, incidents []byte) error {
	answer, err := c.roundTrip(ctx, j, http.MethodPost, incidentsPath, request{body: incidents, token: token, limit: evidence.MaxTicketAnswer})
	if status, ok := errors.AsType[*StatusError](err); ok {
		switch status.Status {
		case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
			return fmt.Errorf("%w: %w", ErrNotServed, err)
		}
	}
	if err != nil {
		return err
	}
	t, err := evidence.ParseTicket(answer)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotServed, violation(err))
	}
	c.mu.Lock()
	c.ticket = t.Ticket
	c.mu.Unlock()
	return nil
}
