// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

const (
	dialTimeout      = 15 * time.Second
	handshakeTimeout = 15 * time.Second
	// maxRedirects: registry -> storage -> CDN is the longest chain seen.
	maxRedirects = 5
)

// newHTTPTransport is the one way of this package onto the network. HTTP/2 is
// left out: its flow control costs throughput on a bulk transfer that gains
// nothing from it, and its frames are one more hostile format to parse. Without
// local it connects to no local address, whatever name resolves to one.
func newHTTPTransport(roots *x509.CertPool, now func() time.Time, headerTimeout time.Duration, proxy Proxy, local bool) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: dialTimeout}
	if !local {
		dialer.Control = refuseLocal(proxy.addresses())
	}
	return &http.Transport{
		Proxy:                  proxy.function(), // never from the environment
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, Time: now, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    handshakeTimeout,
		ResponseHeaderTimeout:  headerTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true, // digests are of the bytes as stored
		ReadBufferSize:         64 << 10,
		Protocols:              protocols,
	}
}

// refuseLocal makes a net.Dialer's Control: it sees each address as it is about to
// be connected to, after the name has been resolved. allowed are exceptions.
func refuseLocal(allowed map[string]bool) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		addr, err := netip.ParseAddrPort(address)
		if err != nil || isLocalAddr(addr.Addr()) && !allowed[address] {
			return fmt.Errorf("%w: the name resolves to the local address %s", ErrRedirect, address)
		}
		return nil
	}
}

// guard stands below everything that speaks to one registry, go-containerregistry
// included, and sees every request as it goes onto the wire.
type guard struct {
	next     http.RoundTripper
	host     string // host[:port] of the registry
	insecure bool   // Config.Insecure names it
}

// RoundTrip refuses plain HTTP unless the configuration allows it for this
// registry (go-containerregistry falls back to it for private addresses,
// localhost and *.localhost), and addresses of this machine or its link that the
// registry points to: metadata services and the guest's own loopback.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := g.allow(req.URL); err != nil {
		return nil, err
	}
	return g.next.RoundTrip(req)
}

func (g *guard) allow(u *url.URL) error {
	switch {
	case u.Scheme == "https":
	case u.Scheme == "http" && g.insecure:
	case u.Scheme == "http":
		return fmt.Errorf("%w: %s is not configured as an insecure registry", ErrInsecure, u.Host)
	default:
		return fmt.Errorf("%w: scheme %.20q", ErrRedirect, u.Scheme)
	}
	if isLocal(u.Hostname()) && !isLoopback(hostname(g.host)) {
		return fmt.Errorf("%w: %s points to the local address %s", ErrRedirect, g.host, u.Hostname())
	}
	return nil
}

// checkRedirect is the policy for manifests and blobs. Credentials stay behind
// on their own: go-containerregistry attaches them to requests for the registry's
// host only.
func (g *guard) checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
	}
	if req.URL.Scheme == "http" && via[len(via)-1].URL.Scheme == "https" {
		return fmt.Errorf("%w: from https to http", ErrRedirect)
	}
	return g.allow(req.URL)
}

func hostname(host string) string {
	return (&url.URL{Host: host}).Hostname()
}

// isLocal reports whether host is written as an address that never leaves this
// machine or its link. What other names resolve to is refuseLocal's part.
func isLocal(host string) bool {
	addr, err := netip.ParseAddr(host)
	return isLoopback(host) || err == nil && isLocalAddr(addr)
}

// isLoopback reports whether host is written as this machine: by a name that
// RFC 6761 (6.3) or Debian's /etc/hosts gives it, or by an address.
func isLoopback(host string) bool {
	name := strings.TrimSuffix(strings.ToLower(host), ".")
	if name == "localhost" || name == "ip6-localhost" || name == "ip6-loopback" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && isLoopbackAddr(addr.Unmap())
}

// Linux connects to loopback when it is asked for the unspecified address.
func isLoopbackAddr(addr netip.Addr) bool { return addr.IsLoopback() || addr.IsUnspecified() }

func isLocalAddr(addr netip.Addr) bool {
	addr = addr.Unmap()
	return isLoopbackAddr(addr) || addr.IsLinkLocalUnicast() || addr.IsLinkLocalMulticast()
}

// withoutURL takes the URL out of an HTTP client's error: a redirect target may
// carry a signature that grants access.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
