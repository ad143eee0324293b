// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// seen records which hosts saw which Authorization header.
type seen struct {
	mu      sync.Mutex
	headers map[string][]string
}

func (s *seen) note(req *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.headers == nil {
		s.headers = map[string][]string{}
	}
	s.headers[req.Host] = append(s.headers[req.Host], req.Header.Get("Authorization"))
}

const testUser, testPassword = "user", "pass:word"

func authFor(t testing.TB, host string) *AuthFile {
	t.Helper()
	auth := base64.StdEncoding.EncodeToString([]byte(testUser + ":" + testPassword))
	a, err := ParseAuthFile([]byte(fmt.Sprintf(`{"auths":{%q:{"auth":%q},"other.example":{}}}`, host, auth)))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func isBasic(req *http.Request) bool {
	u, p, ok := req.BasicAuth()
	return ok && u == testUser && p == testPassword
}

func TestRegistryBasicAuth(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if !isBasic(req) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	}
	mustPull(t, newTestPuller(t, r, func(c *Config) { c.Credentials = authFor(t, r.host()) }), r.ref("v1"))
	mustFail(t, newTestPuller(t, r), r.ref("v1"), ErrUnauthorized)
	err := mustFail(t, newTestPuller(t, r, func(c *Config) { c.Credentials = authFor(t, "elsewhere.example") }), r.ref("v1"), ErrUnauthorized)
	if strings.Contains(err.Error(), "word") {
		t.Errorf("the error holds a password: %v", err)
	}
}

// tokenServer makes r ask for tokens, as Docker's registry does, and gives one
// that is good for a number of requests to whom it finds worthy.
func tokenServer(r *registryFake, anonymous bool, uses int) (issued *int) {
	issued = new(int)
	left := 0
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if req.URL.Path == "/token" {
			if !anonymous && !isBasic(req) || req.FormValue("scope") != "repository:app:pull" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			*issued++
			left = uses
			fmt.Fprintf(w, `{"token":"token-%d"}`, *issued)
			return true
		}
		if req.Header.Get("Authorization") != fmt.Sprintf("Bearer token-%d", *issued) || left == 0 {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test",scope="repository:app:pull"`, r.host()))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		left--
		return false
	}
	return issued
}

func TestRegistryToken(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	issued := tokenServer(r, false, 1000)
	p := newTestPuller(t, r, func(c *Config) { c.Credentials = authFor(t, r.host()) })
	mustPull(t, p, r.ref("v1"))
	mustPull(t, p, r.ref("v1"))
	if *issued != 1 {
		t.Errorf("got %d tokens for two pulls, want 1", *issued)
	}
	mustFail(t, newTestPuller(t, r), r.ref("v1"), ErrUnauthorized)
	tokenServer(r, true, 1000)
	mustPull(t, newTestPuller(t, r), r.ref("v1"))
	// A token that expires during the pull is renewed.
	issued = tokenServer(r, true, 2)
	mustPull(t, newTestPuller(t, r, func(c *Config) { c.Parallel = 1 }), r.ref("v1"))
	if *issued < 2 {
		t.Errorf("got %d tokens of two uses each", *issued)
	}
}

// What a token server says beside a token may be one: it is in no error.
func TestRegistryTokenGarbage(t *testing.T) {
	for _, answer := range []string{`{"tokken":"sesame"}`, `sesame`, ``, `{"token":"", "x":"sesame"}`, `{"token":{"sesame":1}}`} {
		r := newRegistryFake(t)
		r.handle = func(w http.ResponseWriter, req *http.Request) bool {
			if req.URL.Path != "/token" {
				w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, r.host()))
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			w.Write([]byte(answer))
			return true
		}
		err := mustFail(t, newTestPuller(t, r), r.ref("v1"), ErrRegistry)
		if strings.Contains(err.Error(), "sesame") {
			t.Errorf("the error quotes the token server: %v", err)
		}
	}
}

// A redirect to storage on another host is followed without credentials.
func TestRegistryRedirectCredentials(t *testing.T) {
	var other seen
	storage := newRegistryFake(t)
	storage.handle = func(_ http.ResponseWriter, req *http.Request) bool { other.note(req); return false }
	for _, auth := range []string{"basic", "token"} {
		r := newRegistryFake(t)
		r.put(t, "v1", someImage(t))
		storage.blobs = r.blobs
		if auth == "token" {
			tokenServer(r, false, 1000)
		}
		check := r.handle
		r.handle = func(w http.ResponseWriter, req *http.Request) bool {
			if check != nil {
				if check(w, req) {
					return true
				}
			} else if !isBasic(req) {
				w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			if strings.Contains(req.URL.Path, "/blobs/") {
				http.Redirect(w, req, "http://"+storage.host()+req.URL.Path+"?signature=sesame", http.StatusTemporaryRedirect)
				return true
			}
			return false
		}
		mustPull(t, newTestPuller(t, r, func(c *Config) { c.Credentials = authFor(t, r.host()) }), r.ref("v1"))
	}
	for host, headers := range other.headers {
		for _, h := range headers {
			if h != "" {
				t.Errorf("%s was sent credentials", host)
			}
		}
	}
	if len(other.headers) == 0 {
		t.Error("the storage host was never asked")
	}
}

func TestRegistryRedirectRefused(t *testing.T) {
	for _, tt := range []struct {
		target string
		want   error
	}{
		{"file:///etc/passwd", ErrRedirect},
		{"ftp://example.com/x", ErrRedirect},
		{"unix:///run/x", ErrRedirect},
		{"//:0/", ErrTransport},
		{"/v2/loop", ErrRedirect},
	} {
		r := newRegistryFake(t)
		r.put(t, "v1", someImage(t))
		r.handle = func(w http.ResponseWriter, req *http.Request) bool {
			if strings.Contains(req.URL.Path, "/blobs/") || req.URL.Path == "/v2/loop" {
				w.Header().Set("Location", tt.target)
				w.WriteHeader(http.StatusFound)
				return true
			}
			return false
		}
		p := newTestPuller(t, r)
		err := mustFail(t, p, r.ref("v1"), tt.want)
		if strings.Contains(err.Error(), "passwd") {
			t.Errorf("the error quotes the redirect's URL: %v", err)
		}
		wantEmpty(t, p)
	}
}

func TestGuard(t *testing.T) {
	for _, tt := range []struct {
		host     string
		insecure bool
		url      string
		want     error
	}{
		{"registry.example", false, "https://registry.example/v2/", nil},
		{"registry.example", false, "https://cdn.example/x", nil},
		{"registry.example", false, "http://registry.example/v2/", ErrInsecure},
		{"registry.example", true, "http://registry.example/v2/", nil},
		{"localhost:5000", false, "http://localhost:5000/v2/", ErrInsecure},
		{"10.0.0.1", false, "http://10.0.0.1/v2/", ErrInsecure},
		{"registry.example", false, "https://127.0.0.1:8006/cdh/resource/x", ErrRedirect},
		{"registry.example", false, "https://localhost/x", ErrRedirect},
		{"registry.example", true, "http://169.254.169.254/latest/meta-data", ErrRedirect},
		{"registry.example", false, "https://[::1]/x", ErrRedirect},
		{"registry.example", false, "https://[::ffff:127.0.0.1]/x", ErrRedirect},
		{"registry.example", false, "https://[fe80::1]/x", ErrRedirect},
		{"registry.example", false, "https://0.0.0.0/x", ErrRedirect},
		{"registry.example", false, "https://LOCALHOST./x", ErrRedirect},
		{"registry.example", false, "https://cdh.localhost:8006/x", ErrRedirect},
		{"registry.example", true, "http://ip6-localhost/x", ErrRedirect},
		{"169.254.1.1", true, "http://127.0.0.1:8006/x", ErrRedirect},
		{"127.0.0.1:5000", true, "http://127.0.0.1:9000/x", nil},
		{"registry.example", false, "file:///etc/passwd", ErrRedirect},
	} {
		g := guard{host: tt.host, insecure: tt.insecure}
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.allow(u); !errors.Is(err, tt.want) {
			t.Errorf("%s -> %s: got %v, want %v", tt.host, tt.url, err, tt.want)
		}
	}
}

// go-containerregistry speaks plain HTTP to loopback, RFC 1918 addresses and
// *.localhost by itself. Here nothing is sent unless the configuration says so.
func TestRegistryHTTPSForced(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	p := newTestPuller(t, nil)
	err := mustFail(t, p, r.ref("v1"), ErrInsecure)
	if len(r.requests) != 0 {
		t.Errorf("requests went out over plain HTTP: %q", r.requests)
	}
	if !strings.Contains(err.Error(), "over HTTPS") {
		t.Errorf("the error hides why HTTPS failed: %v", err)
	}
	other := newTestPuller(t, nil, func(c *Config) { c.Insecure = []string{"127.0.0.1", "localhost", "127.0.0.1:1"} })
	mustFail(t, other, r.ref("v1"), ErrInsecure)
}

// tlsFake serves r over HTTPS as well and returns its host and CA.
func tlsFake(t testing.TB, r *registryFake) (string, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(r)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	return s.Listener.Addr().String(), pool
}

// failing closes the first connections that it accepts.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err == nil && f.left.Add(-1) >= 0 {
		err = c.Close()
	}
	return c, err
}

// A registry of a private address that is starting over HTTPS is waited for as any other: that plain HTTP, which nobody
// asked for, is refused says nothing about it.
func TestRegistryRestartIsNoPlainHTTP(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	s := httptest.NewUnstartedServer(r)
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	f := &failing{Listener: s.Listener}
	f.left.Store(3) // of four attempts
	s.Listener = f
	s.StartTLS()
	t.Cleanup(s.Close)
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	mustPull(t, newTestPuller(t, nil, func(c *Config) { c.Roots = pool }), f.Addr().String()+"/app:v1")
}

func TestRegistryHTTPS(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	host, roots := tlsFake(t, r)
	ref := host + "/app:v1"
	img := mustPull(t, newTestPuller(t, nil, func(c *Config) { c.Roots = roots }), ref)
	wantFile(t, filepath.Join(img.Layers[0], "base"), "base")
	// An insecure registry that speaks HTTPS is still asked for its certificate.
	mustPull(t, newTestPuller(t, nil, func(c *Config) { c.Roots, c.Insecure = roots, []string{host} }), ref)

	n := len(r.requests)
	mustFail(t, newTestPuller(t, nil, func(c *Config) { c.Roots = x509.NewCertPool() }), ref, ErrInsecure)
	if len(r.requests) != n {
		t.Error("an untrusted server was spoken to")
	}
	// Down to plain HTTP by redirect, on the handshake and on a blob.
	for name, matches := range map[string]func(path string) bool{
		"handshake": func(path string) bool { return path == "/v2/" },
		"blob":      func(path string) bool { return strings.Contains(path, "/blobs/") },
	} {
		r.handle = func(w http.ResponseWriter, req *http.Request) bool {
			if req.TLS == nil {
				t.Errorf("a request went out over plain HTTP: %s", req.URL)
			}
			if !matches(req.URL.Path) {
				return false
			}
			http.Redirect(w, req, "http://"+r.host()+req.URL.Path, http.StatusFound)
			return true
		}
		p := newTestPuller(t, nil, func(c *Config) { c.Roots = roots })
		_, err := p.Pull(t.Context(), ref)
		if !errors.Is(err, ErrInsecure) && !errors.Is(err, ErrRedirect) {
			t.Errorf("%s: got error %v, want %v or %v", name, err, ErrInsecure, ErrRedirect)
		}
		wantEmpty(t, p)
	}
}

func TestParseReference(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"alpine", "index.docker.io/library/alpine:latest"},
		{"docker.io/library/alpine:3", "index.docker.io/library/alpine:3"},
		{"registry.example:5000/a/b", "registry.example:5000/a/b:latest"},
		{"registry.example/a:tag@sha256:" + strings.Repeat("a", 64), "registry.example/a@sha256:" + strings.Repeat("a", 64)},
		{"registry.example/a/b.c/d_e/f__g/h---i/0", "registry.example/a/b.c/d_e/f__g/h---i/0:latest"},
		{"registry.example/a:_.-A", "registry.example/a:_.-A"},
		{"oci:/x/y", "oci-layout.invalid/image:latest|/x/y|"},
		{"oci:rel:v1", "oci-layout.invalid/image:v1|rel|v1"},
	} {
		ref, err := parseReference(tt.in, nil)
		if err != nil {
			t.Errorf("%s: %v", tt.in, err)
			continue
		}
		got := ref.name.Name()
		if ref.dir != "" {
			got += "|" + ref.dir + "|" + ref.tag
		}
		if got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.in, got, tt.want)
		}
	}
	for _, in := range []string{"", "oci:", "UPPER/case", "https://registry.example/a", "a b", "registry.example/a:b:c", "a@sha256:12", "oci:/x:bad/tag", "a@md5:d41d8cd98f00b204e9800998ecf8427e"} {
		if _, err := parseReference(in, nil); !errors.Is(err, ErrReference) {
			t.Errorf("%q: got error %v, want %v", in, err, ErrReference)
		}
	}
}
