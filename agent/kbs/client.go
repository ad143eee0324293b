// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// Client talks to one broker. It is safe for any number of concurrent callers.
type Client struct {
	cfg        Config
	base       *url.URL
	transport  *http.Transport
	firstPause time.Duration // before the second attempt

	// mu guards the fields below. It is never held during a request.
	mu      sync.Mutex
	current *session
	running *flight
	ticket  string // by which incidents are told; it outlives sessions
}

// Close drops idle connections and the session. Calls in progress go on.
func (c *Client) Close() {
	c.mu.Lock()
	c.current = nil
	c.mu.Unlock()
	c.transport.CloseIdleConnections()
}

// Token returns a token that is valid for some time yet, attesting first if need be.
// The caller clears it.
func (c *Client) Token(ctx context.Context) ([]byte, error) {
	s, err := c.session(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("fetching a KBS token: %w", err)
	}
	return bytes.Clone(s.token), nil
}

// Key returns the bytes of a resource such as kbs:///repository/type/tag, at most
// evidence.MaxSecretSize of them. The caller clears them.
func (c *Client) Key(ctx context.Context, uri string) ([]byte, error) {
	u, err := ParseResourceURI(uri)
	if err != nil {
		return nil, err
	}
	secret, err := c.fetch(ctx, http.MethodGet, u.path(), nil)
	if err != nil {
		return nil, fmt.Errorf("fetching %s: %w", u, err)
	}
	return secret, nil
}

// fetch gets what a path answers with the session there is, and once more with a new
// one when the broker does not accept it.
func (c *Client) fetch(ctx context.Context, method, path string, sent []byte) ([]byte, error) {
	s, err := c.session(ctx, nil)
	if err != nil {
		return nil, err
	}
	secret, err := c.ask(ctx, s, method, path, sent)
	var status *StatusError
	if !errors.As(err, &status) || status.Status != http.StatusUnauthorized {
		return secret, err
	}
	if s, err = c.session(ctx, s); err != nil {
		return nil, err
	}
	return c.ask(ctx, s, method, path, sent)
}

// ask is one request for something encrypted to the TEE key, tried again while nobody
// answers.
func (c *Client) ask(ctx context.Context, s *session, method, path string, sent []byte) ([]byte, error) {
	var secret []byte
	err := c.retry(ctx, func() error {
		body, err := c.roundTrip(ctx, s.jar, method, path, request{body: sent, token: s.token, limit: evidence.MaxJWESize})
		if err != nil {
			return err
		}
		if secret, err = s.key.open(body); err != nil {
			return violation(err)
		}
		return nil
	})
	return secret, err
}
