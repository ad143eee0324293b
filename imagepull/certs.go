// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

const (
	// maxCertFile caps one file of a certificate directory: a whole system's CAs.
	maxCertFile = 1 << 20
	// maxCertFiles caps the files of all registries together.
	maxCertFiles = 1024
)

// Certificates are what single registries are reached with, from a directory in
// the form of containers-certs.d(5): HOST[:PORT]/*.crt holds CAs that this
// registry's certificate may come from besides Config.Roots, NAME.cert and
// NAME.key a client's certificate and its key, all PEM. They go to that host and
// port alone, and to nothing that it redirects to. nil is none. Safe for
// concurrent use.
type Certificates struct {
	dir   string
	hosts map[string]*hostCertificates // by registry as go-containerregistry names it
}

// hostCertificates is one registry's directory.
type hostCertificates struct {
	dir     string
	roots   []*x509.Certificate
	clients []tls.Certificate
	files   []string // what roots and clients are from, sorted
}

// ReadCertificates reads the directory dir. A file that is not what its name says,
// a .cert without its .key or the other way round, and two directories for one
// registry are errors. Other files are passed over, as the format has it.
func ReadCertificates(dir string) (*Certificates, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("reading registry certificates: %w", err)
	}
	c := &Certificates{dir: dir, hosts: map[string]*hostCertificates{}}
	files := 0
	for _, e := range entries {
		host := e.Name()
		path := filepath.Join(dir, host)
		if info, err := os.Stat(path); err != nil || !info.IsDir() { // a link to a directory is one
			continue
		}
		if host == "docker.io" || host == "registry-1.docker.io" {
			host = name.DefaultRegistry
		}
		if other := c.hosts[host]; other != nil {
			return nil, fmt.Errorf("reading registry certificates: %s and %s are for one registry", other.dir, path)
		}
		h, err := readHost(path)
		if err != nil {
			return nil, fmt.Errorf("reading registry certificates: %w", err)
		}
		if files += len(h.files); files > maxCertFiles {
			return nil, fmt.Errorf("reading registry certificates: more than %d files in %s", maxCertFiles, dir)
		}
		c.hosts[host] = h
	}
	return c, nil
}

func readHost(dir string) (*hostCertificates, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	h := &hostCertificates{dir: dir}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch ext := filepath.Ext(file); ext {
		case ".crt":
			roots, err := readRoots(file)
			if err != nil {
				return nil, err
			}
			h.roots = append(h.roots, roots...)
		case ".cert":
			pair, err := readPair(file, strings.TrimSuffix(file, ext)+".key")
			if err != nil {
				return nil, err
			}
			h.clients = append(h.clients, pair)
		case ".key":
			if _, err := os.Stat(strings.TrimSuffix(file, ext) + ".cert"); err != nil {
				return nil, fmt.Errorf("%s has no certificate: %w", file, err)
			}
			continue
		default:
			continue
		}
		if h.files = append(h.files, e.Name()); len(h.files) > maxCertFiles {
			return nil, fmt.Errorf("more than %d files in %s", maxCertFiles, dir)
		}
	}
	return h, nil
}

func readRoots(file string) (roots []*x509.Certificate, err error) {
	rest, err := readCapped(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("%s: want certificates, got a PEM block of %.40q", file, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		roots = append(roots, cert)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("%s: want a PEM certificate, got none", file)
	}
	return roots, nil
}

func readPair(certFile, keyFile string) (tls.Certificate, error) {
	cert, err := readCapped(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := readCapped(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s has no key: %w", certFile, err)
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s and %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

func readCapped(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxCertFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxCertFile {
		clear(raw)
		return nil, fmt.Errorf("%s: more than %d bytes", file, maxCertFile)
	}
	return raw, nil
}

// transport returns the way to a registry; base reaches all else.
func (c *Certificates) transport(registry string, base *http.Transport) (*certTransport, error) {
	t := &certTransport{certs: c, host: registry, found: c.hosts[registry], base: base, own: base}
	if t.found == nil {
		return t, nil
	}
	roots := base.TLSClientConfig.RootCAs
	if roots == nil {
		system, err := x509.SystemCertPool()
		if err != nil && len(t.found.roots) == 0 {
			return nil, fmt.Errorf("reading the system's roots: %w", err)
		}
		if roots = system; roots == nil {
			roots = x509.NewCertPool() // a guest without any: the registry's own are all there are
		}
	}
	roots = roots.Clone()
	for _, cert := range t.found.roots {
		roots.AddCert(cert)
	}
	t.own = base.Clone()
	t.own.TLSClientConfig.RootCAs, t.own.TLSClientConfig.Certificates = roots, t.found.clients
	return t, nil
}

// certTransport takes requests to one registry over a transport of their own.
type certTransport struct {
	certs     *Certificates
	host      string
	found     *hostCertificates // nil: no directory is for this registry
	base, own *http.Transport
}

// RoundTrip adds to an error of TLS which files it was about.
func (t *certTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != t.host {
		return t.base.RoundTrip(req)
	}
	resp, err := t.own.RoundTrip(req)
	if err == nil || !isTLS(err) {
		return resp, err
	}
	if t.found == nil {
		return resp, fmt.Errorf("%w (no directory of %s is for %s)", err, t.certs.dir, t.host)
	}
	return resp, fmt.Errorf("%w (with %s of %s)", err, strings.Join(t.found.files, ", "), t.found.dir)
}

// isTLS reports whether a certificate was refused, the server's or ours.
func isTLS(err error) bool {
	_, refused := errors.AsType[*tls.CertificateVerificationError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return refused || alert || strings.Contains(err.Error(), "remote error: tls:")
}
