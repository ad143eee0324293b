// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/casemate/casemate/cmd/internal/version"
)

const (
	// headerTimeout ends requests that a registry accepts and never answers.
	headerTimeout = 2 * time.Minute
	// idleTimeout drops connections that are kept for reuse.
	idleTimeout = time.Minute
)

// Config says how registries are reached.
type Config struct {
	// Insecure names the registries (HOST or HOST:PORT) that may be reached
	// over plain HTTP.
	Insecure []string
	// Roots are the certificates that registries may present. Nil means the
	// system's.
	Roots *x509.CertPool
}

// Client opens and writes images. Credentials are those of docker's and
// podman's configuration files.
type Client struct {
	transport *httpsOnly
}

// New returns a client. It does not connect.
func New(c Config) *Client {
	t := &httpsOnly{
		next: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			ResponseHeaderTimeout: headerTimeout,
			IdleConnTimeout:       idleTimeout,
			ForceAttemptHTTP2:     true,
		},
		insecure: make(map[string]bool),
	}
	for _, registry := range c.Insecure {
		t.insecure[registry] = true
	}
	return &Client{transport: t}
}

func (c *Client) options(ctx context.Context) []remote.Option {
	return []remote.Option{
		remote.WithContext(ctx),
		remote.WithTransport(c.transport),
		remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("casemate-build/" + version.Number),
		// Guests have no other place to fetch layers from.
		remote.WithNondistributable,
	}
}
