// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// callTimeout covers a registration with a large policy on a slow link.
	callTimeout = 30 * time.Second
	// maxAnswer bounds a listing: thousands of workloads or secrets.
	maxAnswer = 4 << 20
)

// ErrNotFound says that the keybroker has no such workload or secret.
var ErrNotFound = errors.New("not found at the keybroker")

// Config says which keybroker, and why it is believed.
type Config struct {
	// URL is the keybroker's address, https://HOST[:PORT].
	URL string
	// Roots are the certificates to trust, see ReadRoots. Nil means the system's.
	Roots *x509.CertPool
	// AllowPlainHTTP permits an http URL. The token and all secrets are then readable
	// on the way.
	AllowPlainHTTP bool
	// Token is the owner token, see ReadToken. The client keeps a copy.
	Token []byte
}

// Client calls the owner API. It is safe for concurrent use.
type Client struct {
	base string
	auth string
	http *http.Client
}

// New checks c. It does not connect.
func New(c Config) (*Client, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("keybroker address %q is not a URL with a host", c.URL)
	}
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && c.AllowPlainHTTP:
	case u.Scheme == "http":
		return nil, fmt.Errorf("keybroker address %s is plain http, which was not allowed", c.URL)
	default:
		return nil, fmt.Errorf("keybroker address %s: scheme %q, want https", c.URL, u.Scheme)
	}
	if u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return nil, errors.New("keybroker address has a user, query or fragment")
	}
	if len(c.Token) == 0 {
		return nil, errors.New("no owner token")
	}
	if !validToken(c.Token) {
		return nil, errors.New("owner token has characters that no keybroker writes")
	}
	return &Client{
		base: strings.TrimRight(c.URL, "/") + "/owner/v1/",
		auth: "Bearer " + string(c.Token),
		http: &http.Client{
			Timeout: callTimeout,
			// No proxy from the environment: the token goes to the named keybroker only.
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS13}},
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("keybroker answered with a redirect")
			},
		},
	}, nil
}

func validToken(token []byte) bool {
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// Problem is the body of every answer that is not a success.
type Problem struct {
	// Code is stable: "invalid", "not-found", "unauthorized", "internal".
	Code string `json:"code"`
	// Detail is for people.
	Detail string `json:"detail"`
}

// call sends one request and decodes the answer into out, which may be nil.
func (c *Client) call(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", c.auth)
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return fmt.Errorf("reading answer: %w", err)
	}
	if len(answer) > maxAnswer {
		return fmt.Errorf("answer is over %d bytes", maxAnswer)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return problem(resp.StatusCode, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("parsing answer: %w", err)
	}
	return nil
}

func problem(status int, answer []byte) error {
	var p Problem
	if err := json.Unmarshal(answer, &p); err != nil || p.Detail == "" {
		return fmt.Errorf("keybroker answered %d %s", status, http.StatusText(status))
	}
	if p.Code == "not-found" {
		return fmt.Errorf("%w: %s", ErrNotFound, p.Detail)
	}
	return fmt.Errorf("keybroker answered %d: %s", status, p.Detail)
}
