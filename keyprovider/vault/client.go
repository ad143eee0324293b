// SPDX-License-Identifier: Apache-2.0

package vault

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
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxSecret bounds what a secret is, in bytes; Vault stores entries of up to 1 MiB.
	MaxSecret = 512 << 10
	// maxAnswer leaves room for the other fields of an entry and for escapes.
	maxAnswer = 2 << 20
	// maxToken bounds a token; Vault's batch tokens are a few hundred bytes.
	maxToken = 8 << 10
	// maxName bounds a path below a mount.
	maxName = 512

	timeout = 30 * time.Second
)

// Default mounts of the two engines.
const (
	DefaultTransit = "transit"
	DefaultKV      = "secret"
)

var (
	// ErrDenied says that the server refused the token or its policy.
	ErrDenied = errors.New("denied by the vault")
	// ErrNotFound says that the server has no such key or secret.
	ErrNotFound = errors.New("not found at the vault")
	// ErrUnavailable says that no usable answer came.
	ErrUnavailable = errors.New("vault unavailable")
	// ErrAnswer says that an answer is not of the documented form.
	ErrAnswer = errors.New("vault answered outside its API")
	// ErrRequest says that a sealed secret asks for what is not served.
	ErrRequest = errors.New("not a request for this vault")
)

// Config says which server is asked. All of it must be measured.
type Config struct {
	// URL is https://HOST[:PORT].
	URL string
	// Roots are the only certificates that the server's chain may end in.
	Roots *x509.CertPool
	// Namespace is Vault Enterprise's and OpenBao's; "" is the root.
	Namespace string
	// Transit and KV are mounts; "" is the default one.
	Transit, KV string
	// Token returns the token; it is asked for at each call, and cleared.
	Token func(ctx context.Context) ([]byte, error)
}

// Client is safe for concurrent use.
type Client struct {
	cfg  Config
	base string
	http *http.Client
}

// New checks the configuration; it does not connect.
func New(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.URL)
	switch {
	case err != nil:
		return nil, errors.New("configuring the vault client: the URL does not parse")
	case u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("configuring the vault client: %.128q: want https://HOST[:PORT]", cfg.URL)
	case cfg.Roots == nil:
		return nil, errors.New("configuring the vault client: no pinned roots")
	case cfg.Token == nil:
		return nil, errors.New("configuring the vault client: no token")
	case strings.ContainsFunc(cfg.Namespace, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fmt.Errorf("configuring the vault client: namespace %.64q", cfg.Namespace)
	}
	if cfg.Transit == "" {
		cfg.Transit = DefaultTransit
	}
	if cfg.KV == "" {
		cfg.KV = DefaultKV
	}
	for _, mount := range []string{cfg.Transit, cfg.KV} {
		if err := CheckName(mount); err != nil {
			return nil, fmt.Errorf("configuring the vault client: mount: %w", err)
		}
	}
	return &Client{cfg: cfg, base: "https://" + u.Host + "/v1/", http: &http.Client{
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:           nil, // never from the environment
			TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
			MaxConnsPerHost: 4, IdleConnTimeout: time.Minute, DisableCompression: true,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}}, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// CheckName takes one or more path segments without escapes, queries or dots at their
// start, so one thing has one name: a key or an entry below its mount.
func CheckName(name string) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("%w: name of %d bytes, want 1 to %d", ErrRequest, len(name), maxName)
	}
	for segment := range strings.SplitSeq(name, "/") {
		if segment == "" || segment[0] == '.' || strings.ContainsFunc(segment, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
		}) {
			return fmt.Errorf("%w: name %.128q, want segments of letters, digits, _, - and .", ErrRequest, name)
		}
	}
	return nil
}

// call sends one request and returns the member "data" of the answer. The caller clears
// the result, which is a copy.
func (c *Client) call(ctx context.Context, method, path string, body []byte) (jsontext.Value, error) {
	token, err := c.cfg.Token(ctx)
	defer clear(token)
	if err != nil {
		return nil, fmt.Errorf("getting the vault's token: %w", err)
	}
	token = bytes.TrimSpace(token)
	if len(token) == 0 || len(token) > maxToken || bytes.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("getting the vault's token: it is not one line of text")
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("building the vault request")
	}
	req.GetBody = nil
	req.Header.Set("X-Vault-Token", string(token))
	req.Header.Set("X-Vault-Request", "true")
	req.Header.Set("User-Agent", "casemate")
	if c.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.cfg.Namespace)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, statusError(resp.StatusCode)
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	defer clear(raw)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	if len(raw) > maxAnswer {
		return nil, fmt.Errorf("%w: over %d bytes", ErrAnswer, maxAnswer)
	}
	var answer struct {
		Data jsontext.Value `json:"data"`
	}
	if err := json.Unmarshal(raw, &answer); err != nil || answer.Data.Kind() != '{' {
		return nil, fmt.Errorf("%w: no JSON with data", ErrAnswer)
	}
	return answer.Data, nil
}

// unavailable keeps the library's text out, which may quote the peer.
func unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w: its certificate does not end in the pinned roots, or is for another name or time", ErrUnavailable)
	}
	return fmt.Errorf("%w: no answer", ErrUnavailable)
}

func statusError(status int) error {
	kind := ErrAnswer
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden:
		kind = ErrDenied
	case http.StatusNotFound:
		kind = ErrNotFound
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		kind = ErrUnavailable // sealed or in maintenance, by Vault's API
	}
	if status >= 300 && status < 400 {
		return fmt.Errorf("%w: status %d, redirects are refused: name the active node", kind, status)
	}
	return fmt.Errorf("%w: status %d", kind, status)
}
