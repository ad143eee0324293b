// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestLocalNames(t *testing.T) {
	for host, want := range map[string][2]bool{ // local, loopback
		"localhost":             {true, true},
		"LocalHost":             {true, true},
		"localhost.":            {true, true},
		"x.localhost":           {true, true},
		"a.B.LOCALHOST.":        {true, true},
		"ip6-localhost":         {true, true},
		"IP6-loopback.":         {true, true},
		"127.0.0.1":             {true, true},
		"127.9.9.9":             {true, true},
		"0.0.0.0":               {true, true},
		"::":                    {true, true},
		"::1":                   {true, true},
		"::ffff:127.0.0.1":      {true, true},
		"169.254.169.254":       {true, false},
		"fe80::1":               {true, false},
		"fe80::1%eth0":          {true, false},
		"10.0.0.1":              {false, false},
		"2001:db8::1":           {false, false},
		"localhost.example":     {false, false},
		"notlocalhost":          {false, false},
		"ip6-localhost.example": {false, false},
		"registry.example":      {false, false},
	} {
		if got := [2]bool{isLocal(host), isLoopback(host)}; got != want {
			t.Errorf("%q: local, loopback: got %v, want %v", host, got, want)
		}
	}
}

// A name that the network resolves to loopback gets no connection there, by
// whatever name; only the transport for registries named as loopback does.
func TestDialRefusesLocal(t *testing.T) {
	r := newRegistryFake(t)
	_, port, _ := net.SplitHostPort(r.host())
	for _, host := range []string{"127.0.0.1", "localhost", "0.0.0.0", "[::ffff:127.0.0.1]"} {
		for _, local := range []bool{false, true} {
			tr := newHTTPTransport(nil, nil, time.Second, Proxy{}, local)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+":"+port+"/v2/", nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := tr.RoundTrip(req)
			if err == nil {
				resp.Body.Close()
			}
			tr.CloseIdleConnections()
			if local != (err == nil) || !local && !errors.Is(err, ErrRedirect) {
				t.Errorf("%s, local %v: got error %v", host, local, err)
			}
		}
	}
	for address, want := range map[string]error{
		"169.254.169.254:80": ErrRedirect, "[fe80::1%eth0]:443": ErrRedirect, "[::1]:443": ErrRedirect, "[::]:1": ErrRedirect,
		"": ErrRedirect, "registry.example:443": ErrRedirect, "10.0.0.1:443": nil, "[2001:db8::1]:443": nil,
	} {
		if err := refuseLocal(nil)("tcp", address, nil); !errors.Is(err, want) {
			t.Errorf("%q: got error %v, want %v", address, err, want)
		}
	}
}

// A registry whose name resolves to loopback, insecure or not, is refused by the
// whole of a pull. The dial goes on to an address as a resolver would give it.
func TestPullRefusesLocal(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", someImage(t))
	p := newTestPuller(t, nil, func(c *Config) { c.Insecure = []string{"registry.example"} })
	dial := p.http.DialContext
	p.http.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, network, r.host())
	}
	mustFail(t, p, "registry.example/app:v1", ErrRedirect)
	if len(r.requests) != 0 {
		t.Errorf("requests reached loopback: %q", r.requests)
	}
	if p.transport("registry.example") != p.http || p.transport("169.254.1.1:5000") != p.http ||
		p.transport("127.0.0.1:5000") != p.local || p.transport("x.LOCALHOST:5000") != p.local {
		t.Error("a registry got the other transport")
	}
}

// dialled notes where a transport wants to connect to, and connects to nothing.
type dialled struct {
	mu        sync.Mutex
	addresses []string
}

func (d *dialled) dial(_ context.Context, _, address string) (net.Conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.addresses = append(d.addresses, address)
	return nil, errors.New("no network here")
}

// net/http reads the proxy variables once in a process, so that the test needs
// one of its own.
func TestNoProxyFromEnvironment(t *testing.T) {
	const proxy = "http://proxy.example:3128"
	if os.Getenv("HTTPS_PROXY") != proxy {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoProxyFromEnvironment$", "-test.count=1")
		cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
			name, _, _ := strings.Cut(strings.ToUpper(v), "=")
			return strings.HasSuffix(name, "_PROXY") || name == "REQUEST_METHOD"
		})
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"} {
			cmd.Env = append(cmd.Env, name+"="+proxy)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("with proxies in the environment: %v\n%s", err, out)
		}
		return
	}
	if u, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: "registry.example"}}); err != nil || u == nil || u.String() != proxy {
		t.Fatalf("the variables name no proxy: got %v, %v", u, err)
	}
	p, err := New(Config{Store: filepath.Join(t.TempDir(), "store"), Policy: acceptAnything(t), Insecure: []string{"registry.example"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.retrier.attempts = 1
	var d dialled
	p.http.DialContext, p.local.DialContext = d.dial, d.dial
	for _, ref := range []string{"registry.example/app:v1", "localhost:5000/app:v1"} {
		if _, err := p.Pull(t.Context(), ref); err == nil {
			t.Errorf("%s: pulled without a network", ref)
		}
	}
	slices.Sort(d.addresses)
	d.addresses = slices.Compact(d.addresses)
	// HTTPS and, because the registry is insecure, HTTP; localhost is never proxied.
	want := []string{"localhost:5000", "registry.example:443", "registry.example:80"}
	if !slices.Equal(d.addresses, want) {
		t.Errorf("dialled: got %q, want %q", d.addresses, want)
	}
}

// What a server says about itself or about us, in words of TLS or in none of them, it will say again: nobody waits for
// another answer. A connection that breaks may be a server's restart.
func TestRefusedConnectionIsFinal(t *testing.T) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	roots := x509.NewCertPool()
	serve := func(config *tls.Config) string {
		s := httptest.NewUnstartedServer(answer)
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
		if s.TLS = config; config == nil {
			s.Start()
		} else {
			s.StartTLS()
			roots.AddCert(s.Certificate())
		}
		t.Cleanup(s.Close)
		return s.Listener.Addr().String()
	}
	broken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { broken.Close() })
	go func() {
		for {
			c, err := broken.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	for name, tt := range map[string]struct {
		host  string
		again bool
	}{
		"no TLS":                     {serve(nil), false},
		"a client's certificate":     {serve(&tls.Config{ClientAuth: tls.RequireAnyClientCert}), false},
		"no version in common":       {serve(&tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}), false},
		"a connection that is reset": {broken.Addr().String(), true},
	} {
		client := &http.Client{Transport: newHTTPTransport(roots, nil, 5*time.Second, Proxy{}, true)}
		resp, err := client.Get("https://" + tt.host + "/v2/")
		if err == nil {
			resp.Body.Close()
			t.Errorf("%s: no error", name)
			continue
		}
		if err = classify(t.Context(), err); !errors.Is(err, ErrTransport) || is[*retryable](err) != tt.again {
			t.Errorf("%s: tried again %v, want %v: %v", name, is[*retryable](err), tt.again, err)
		}
		client.CloseIdleConnections()
	}
}
