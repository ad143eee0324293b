// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

// KeyAlgorithm chooses the key pair that secrets are encrypted to, by the names of
// guest-components' configuration.
type KeyAlgorithm string

// The algorithms; the zero value is ECP256.
const (
	ECP256  KeyAlgorithm = "ECDH-ES+A256KW-P256"
	ECP521  KeyAlgorithm = "ECDH-ES+A256KW-P521"
	RSA2048 KeyAlgorithm = "RSA-OAEP-256"
)

// Attester produces evidence bound to a handshake.
type Attester interface {
	TEE() evidence.TEE
	Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error)
}

// Config says which broker is asked and what it is shown. All of it must come from
// measured configuration or accepted initdata.
type Config struct {
	// URL is the broker's address without /kbs/v0, https or http.
	URL string
	// Roots are the only certificates that the broker's chain may end in.
	Roots *x509.CertPool
	// AllowPlainHTTP accepts an http URL. Whoever is on the way can then answer
	// instead of the broker.
	AllowPlainHTTP bool
	KeyAlgorithm   KeyAlgorithm
	Attester       Attester
	// Devices attest beside Attester, each bound to the same nonce and key; nil is none. One
	// that cannot ends the handshake.
	Devices []Attester
	// InitData is the initdata document as delivered; nil when there is none.
	InitData []byte
	// RequestTimeout bounds one request with its answer; 0 means 60 s.
	RequestTimeout time.Duration
	// Transcript is told how each handshake went, failed attempts as well, before its
	// outcome is acted on; nil is nobody.
	Transcript func(Transcript)
	// Issued is told when a token was issued that came over https, by the broker's own
	// clock: time has come that far. nil is nobody.
	Issued func(time.Time)
	// Report returns what the broker is told after a handshake, accepted or refused, for
	// the workload's owner: a JSON object of at most evidence.MaxGuestReport bytes, without
	// secrets; nil tells nothing. Nothing depends on its being heard.
	Report func(Transcript) []byte
	// Log tells of handshakes; nil discards.
	Log *slog.Logger
}

const (
	defaultTimeout = 60 * time.Second

	// maxConns bounds the connections to the broker, however many callers wait.
	maxConns = 16

	// maxHeaderSize bounds an answer's header: cookies and the usual lines.
	maxHeaderSize = 64 << 10
)

// New checks the configuration; it does not connect.
func New(cfg Config) (*Client, error) {
	base, err := baseURL(cfg)
	if err != nil {
		return nil, fmt.Errorf("configuring the KBS client: %w", err)
	}
	if cfg.Attester == nil {
		return nil, errors.New("configuring the KBS client: no attester")
	}
	switch cfg.KeyAlgorithm {
	case "":
		cfg.KeyAlgorithm = ECP256
	case ECP256, ECP521, RSA2048:
	default:
		return nil, fmt.Errorf("configuring the KBS client: unsupported key algorithm %.32q", cfg.KeyAlgorithm)
	}
	if len(cfg.InitData) > evidence.MaxInitDataSize {
		return nil, fmt.Errorf("configuring the KBS client: initdata is %d bytes, at most %d allowed",
			len(cfg.InitData), evidence.MaxInitDataSize)
	}
	if cfg.RequestTimeout == 0 {
		cfg.RequestTimeout = defaultTimeout
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{cfg: cfg, base: base, firstPause: firstPause, transport: &http.Transport{
		Proxy:                  nil, // never from the environment
		TLSClientConfig:        &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
		MaxConnsPerHost:        maxConns,
		MaxIdleConnsPerHost:    maxConns,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: maxHeaderSize,
		DisableCompression:     true, // a size cap must count what is on the wire
	}}, nil
}

// baseURL returns the address of the protocol, without a slash at its end.
func baseURL(cfg Config) (*url.URL, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errors.New("the URL does not parse")
	}
	switch {
	case u.Scheme == "https" && cfg.Roots == nil:
		return nil, errors.New("https without pinned roots: anybody with a public certificate could answer")
	case u.Scheme == "http" && cfg.Roots != nil:
		return nil, errors.New("an http URL with pinned roots: nothing would be checked against them")
	case u.Scheme == "http" && !cfg.AllowPlainHTTP:
		return nil, errors.New("plain HTTP to the KBS is not allowed by the configuration")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("URL scheme %.16q is neither https nor http", u.Scheme)
	case u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
		return nil, errors.New("the URL must be a scheme, a host and at most a path")
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimRight(u.Path, "/") + "/kbs/v0"}, nil
}
