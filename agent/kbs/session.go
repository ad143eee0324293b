// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"fmt"
	"time"
)

// session is what one handshake earned. It does not change afterwards.
type session struct {
	token []byte
	until time.Time // by the monotonic clock
	key   teeKey
	jar   *jar
}

// flight is one handshake in progress. Its other fields are set before done closes.
type flight struct {
	done    chan struct{}
	session *session
	err     error
	// abandoned says that the caller who ran it gave up, which tells the callers who
	// waited for it nothing about the broker.
	abandoned bool
}

// session returns the current session unless it is stale or about to end, and else
// the one that a new handshake earns. Callers who arrive meanwhile wait for that
// handshake and share its result, good or bad.
func (c *Client) session(ctx context.Context, stale *session) (*session, error) {
	for {
		c.mu.Lock()
		if c.current == stale || c.current != nil && !time.Now().Before(c.current.until) {
			c.current = nil
		}
		if s := c.current; s != nil {
			c.mu.Unlock()
			return s, nil
		}
		f := c.running
		if f == nil {
			f = &flight{done: make(chan struct{})}
			c.running = f
			c.mu.Unlock()
			return c.fly(ctx, f)
		}
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the handshake: %w", context.Cause(ctx))
		}
		if !f.abandoned {
			return f.session, f.err
		}
	}
}

// fly runs the handshake in the caller's own goroutine and wakes those who wait, even
// if an attester panics.
func (c *Client) fly(ctx context.Context, f *flight) (*session, error) {
	f.abandoned = true
	defer func() {
		c.mu.Lock()
		c.running = nil
		if f.session != nil {
			c.current = f.session
		}
		c.mu.Unlock()
		close(f.done)
	}()
	f.session, f.err = c.handshake(ctx)
	f.abandoned = f.err != nil && ctx.Err() != nil
	return f.session, f.err
}
