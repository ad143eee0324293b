// SPDX-License-Identifier: Apache-2.0

package aws

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
	// MaxSecret bounds a secret, in bytes: what Secrets Manager stores at most.
	MaxSecret = 64 << 10
	// maxAnswer leaves room for base64, escapes and the other members.
	maxAnswer = 1 << 20
	// maxError bounds an answer that is not 200; its kind stands in front.
	maxError = 64 << 10

	timeout = 30 * time.Second
)

var (
	// ErrDenied says that the service refused the credential or its policy.
	ErrDenied = errors.New("denied by AWS")
	// ErrNotFound says that the service has no such key or secret.
	ErrNotFound = errors.New("not found at AWS")
	// ErrUnavailable says that no usable answer came.
	ErrUnavailable = errors.New("AWS unavailable")
	// ErrAnswer says that an answer is not of the documented form, or a refusal of what was asked.
	ErrAnswer = errors.New("AWS refused or answered outside its API")
	// ErrRequest says that a sealed secret asks for what is not served.
	ErrRequest = errors.New("not a request for AWS as configured")
)

// Config says which services are asked. All of it must be measured.
type Config struct {
	// Region is such as eu-central-1.
	Region string
	// KMS and Secrets are https://HOST[:PORT]; "" is the region's public address.
	KMS, Secrets string
	// Roots are the only certificates that the services' chains may end in.
	Roots *x509.CertPool
	// Credential returns a credential.json; it is asked for at each call, and cleared.
	Credential func(ctx context.Context) ([]byte, error)
}

// Client is safe for concurrent use.
type Client struct {
	cfg  Config
	http *http.Client
	now  func() time.Time
}

// New checks the configuration; it does not connect.
func New(cfg Config) (*Client, error) {
	if !isRegion(cfg.Region) {
		return nil, fmt.Errorf("configuring the AWS client: region %.64q", cfg.Region)
	}
	if cfg.Roots == nil || cfg.Credential == nil {
		return nil, errors.New("configuring the AWS client: no pinned roots or no credential")
	}
	for _, s := range []struct {
		address *string
		service string
	}{{&cfg.KMS, serviceKMS}, {&cfg.Secrets, serviceSecrets}} {
		if *s.address == "" {
			*s.address = "https://" + s.service + "." + cfg.Region + ".amazonaws.com"
		}
		u, err := url.Parse(*s.address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
			return nil, fmt.Errorf("configuring the AWS client: %.128q: want https://HOST[:PORT]", *s.address)
		}
		*s.address = u.Host
	}
	return &Client{cfg: cfg, now: time.Now, http: &http.Client{
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

// isRegion takes what may stand in a host name.
func isRegion(s string) bool {
	return len(s) <= 32 && s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" && s[0] != '-' && s[len(s)-1] != '-'
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call makes one signed request and returns the answer, which the caller clears.
func (c *Client) call(ctx context.Context, service, host, target string, body []byte) ([]byte, error) {
	raw, err := c.cfg.Credential(ctx)
	defer clear(raw)
	if err != nil {
		return nil, fmt.Errorf("getting the AWS credential: %w", err)
	}
	cred, err := parseCredential(raw)
	if err != nil {
		return nil, fmt.Errorf("getting the AWS credential: %w", err)
	}
	defer cred.clear()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+"/", bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("building the AWS request")
	}
	req.GetBody = nil
	req.Header.Set("User-Agent", "casemate")
	// The guest's clock is the host's to set; a wrong one gets a refusal and no more.
	at := scope{at: c.now(), region: c.cfg.Region, service: service}
	headers := []header{
		{"content-type", "application/x-amz-json-1.1"}, {"host", host}, {"x-amz-date", at.at.UTC().Format(sigTime)},
	}
	if cred.session != nil {
		headers = append(headers, header{"x-amz-security-token", string(cred.session)})
	}
	headers = append(headers, header{"x-amz-target", target})
	for _, h := range headers {
		if h.name != "host" {
			req.Header.Set(h.name, h.value)
		}
	}
	req.Header.Set("Authorization", authorize(cred, at, req.Method, headers, body))
	return c.answer(ctx, req)
}

func (c *Client) answer(ctx context.Context, req *http.Request) ([]byte, error) {
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unavailable(ctx, err)
	}
	defer resp.Body.Close()
	limit := maxAnswer
	if resp.StatusCode != http.StatusOK {
		limit = maxError
	}
	raw, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case err != nil:
		err = unavailable(ctx, err)
	case resp.StatusCode != http.StatusOK:
		err = statusError(resp.StatusCode, raw)
	case len(raw) > limit:
		err = fmt.Errorf("%w: over %d bytes", ErrAnswer, limit)
	default:
		return raw, nil
	}
	clear(raw)
	return nil, err
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

// kindOf sorts the failures that the two APIs and the signature's check document; nil for others.
func kindOf(name string) error {
	switch name {
	case "AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException", "InvalidClientTokenId",
		"InvalidSignatureException", "SignatureDoesNotMatch":
		return ErrDenied
	case "NotFoundException", "ResourceNotFoundException":
		return ErrNotFound
	case "InvalidCiphertextException", "IncorrectKeyException", "DisabledException", "InvalidKeyUsageException",
		"KMSInvalidStateException", "InvalidRequestException":
		return ErrAnswer
	case "ThrottlingException", "KMSInternalException", "InternalServiceError", "DependencyTimeoutException", "KeyUnavailableException":
		return ErrUnavailable
	}
	return nil
}

// statusError names the kind of a failure where it is one of those above.
func statusError(status int, body []byte) error {
	var failure struct {
		Type string `json:"__type"`
	}
	_ = json.Unmarshal(body, &failure) // a body without a kind has none
	name := failure.Type[strings.LastIndexByte(failure.Type, '#')+1:]
	if kind := kindOf(name); kind != nil {
		return fmt.Errorf("%w: status %d, %s", kind, status, name)
	}
	kind := ErrAnswer
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		kind = ErrDenied
	case status == http.StatusTooManyRequests || status >= 500:
		kind = ErrUnavailable
	}
	return fmt.Errorf("%w: status %d", kind, status)
}
