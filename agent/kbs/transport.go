// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// request is what roundTrip sends beside method and path.
type request struct {
	body  []byte     // JSON; nil for none
	token []byte     // bearer token; nil for none
	limit int        // largest answer in bytes
	date  *time.Time // receives the Date of the answer, the zero time when there is none
	// reference receives keybroker's id of the handshake, "" when the answer has none.
	reference *string
}

// errTimeout is the cause of a request that took too long.
var errTimeout = errors.New("no answer in time")

// roundTrip sends one request below the base URL and returns the body of a 200. path
// may end in a query. Errors wrap ErrUnavailable when nothing was answered, a
// *StatusError for other answers, ErrProtocol for a body over its limit.
func (c *Client) roundTrip(ctx context.Context, j *jar, method, path string, r request) ([]byte, error) {
	limited, cancel := context.WithTimeoutCause(ctx, c.cfg.RequestTimeout, errTimeout)
	defer cancel()
	req, err := c.newRequest(limited, method, path, r)
	if err != nil {
		return nil, err
	}
	hc := &http.Client{
		Transport: c.transport,
		Jar:       j,
		// The answer to the first request is the answer, whatever it points to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := hc.Do(req)
	if err != nil {
		return nil, c.unavailable(ctx, limited, err)
	}
	defer resp.Body.Close()
	if id := resp.Header.Get(referenceHeader); r.reference != nil && isReference(id) {
		*r.reference = id
	}
	limit := r.limit
	if resp.StatusCode != http.StatusOK {
		limit = evidence.MaxErrorSize
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, c.unavailable(ctx, limited, err)
	}
	if resp.StatusCode != http.StatusOK {
		status := &StatusError{Status: resp.StatusCode}
		if info, err := evidence.ParseErrorInformation(body); err == nil {
			status.Info = info
		}
		return nil, status
	}
	if len(body) > limit {
		return nil, violation(fmt.Errorf("answer of more than %d bytes", limit))
	}
	if r.date != nil {
		*r.date, _ = http.ParseTime(resp.Header.Get("Date")) // the zero time if it does not parse
	}
	return body, nil
}

// referenceHeader is keybroker's; other brokers do not send it.
const referenceHeader = "Casemate-Correlation"

// isReference accepts 16 lower-case hex digits.
func isReference(id string) bool {
	return len(id) == 16 && strings.Trim(id, "0123456789abcdef") == ""
}

func (c *Client) newRequest(ctx context.Context, method, path string, r request) (*http.Request, error) {
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base.String()+"/"+path, body)
	if err != nil {
		return nil, errors.New("building the request")
	}
	req.GetBody = nil // nothing below sends it a second time
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "casemate")
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.token != nil {
		req.Header.Set("Authorization", "Bearer "+string(r.token))
	}
	return req, nil
}

// unavailable turns a failed exchange into an error. The library's text may quote what
// the peer sent, and the peer knows our token, so only chosen causes are repeated.
func (c *Client) unavailable(ctx, limited context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(context.Cause(limited), errTimeout) {
		return fmt.Errorf("%w: %w (%s)", ErrUnavailable, errTimeout, c.cfg.RequestTimeout)
	}
	var certificate *tls.CertificateVerificationError
	if errors.As(err, &certificate) {
		return violation(errors.New("TLS certificate refused: " + certificateReason(certificate.Err)))
	}
	reason := "the answer is not HTTP or was cut short"
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Err != nil && op.Op != "remote error":
		reason = fmt.Sprintf("%s %s: %v", op.Op, c.base.Host, op.Err)
	case errors.As(err, &op):
		reason = "the TLS peer ended the handshake"
	}
	return fmt.Errorf("%w: %s", ErrUnavailable, reason)
}

func certificateReason(err error) string {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &authority):
		return "its chain does not end in the pinned roots"
	case errors.As(err, &name):
		return "it is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "expired or not yet valid by the guest's clock"
	}
	return "invalid"
}

const (
	maxCookies    = 8       // the session and what a load balancer adds
	maxCookieSize = 4 << 10 // what browsers allow, RFC 6265 section 6.1
)

// jar keeps the cookies of one session and shows them to no other origin. Expiry is
// ignored, because it would be measured by the host's clock; the session ends sooner.
type jar struct {
	origin string

	// mu guards cookies.
	mu      sync.Mutex
	cookies []*http.Cookie
}

func newJar(base *url.URL) *jar { return &jar{origin: origin(base)} }

func origin(u *url.URL) string { return u.Scheme + "://" + strings.ToLower(u.Host) }

// SetCookies implements http.CookieJar.
func (j *jar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	if origin(u) != j.origin {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range cookies {
		j.cookies = slices.DeleteFunc(j.cookies, func(old *http.Cookie) bool { return old.Name == c.Name })
		if c.MaxAge >= 0 && len(c.Name)+len(c.Value) <= maxCookieSize && len(j.cookies) < maxCookies {
			j.cookies = append(j.cookies, &http.Cookie{Name: c.Name, Value: c.Value})
		}
	}
}

// Cookies implements http.CookieJar.
func (j *jar) Cookies(u *url.URL) []*http.Cookie {
	if origin(u) != j.origin {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.cookies)
}

func (j *jar) empty() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.cookies) == 0
}
