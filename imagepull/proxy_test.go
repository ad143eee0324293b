// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestPullThroughProxy: a registry that only the proxy can reach; what is exempt
// goes without it.
func TestPullThroughProxy(t *testing.T) {
	r := newRegistryFake(t)
	r.put(t, "v1", testImage{layers: []testLayer{gzipLayer(t, someTar(t))}})
	var carried atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		carried.Add(1)
		out := req.Clone(req.Context())
		out.URL.Host, out.RequestURI = r.host(), ""
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	t.Cleanup(proxy.Close)
	const registry = "registry.invalid"
	p := newTestPuller(t, r, func(c *Config) {
		c.Insecure, c.Proxy = []string{registry, "exempt.invalid"}, Proxy{HTTP: proxy.URL, No: "exempt.invalid"}
		c.Registries = registriesOf(t, "[[registry]]\nlocation='registry.invalid'\ninsecure=true")
	})
	img := mustPull(t, p, registry+"/app:v1")
	wantFile(t, img.Layers[0]+"/etc/motd", "hello\n")
	if carried.Load() == 0 {
		t.Error("the proxy saw no request")
	}
	before := carried.Load()
	mustFail(t, p, "exempt.invalid/app:v1", ErrTransport)
	if carried.Load() != before {
		t.Error("the proxy saw a request for an exempt registry")
	}
}

func TestProxyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		proxy Proxy
	}{
		{"no scheme", Proxy{HTTPS: "proxy.example:3128"}},
		{"socks", Proxy{HTTPS: "socks5://proxy.example:1080"}},
		{"path", Proxy{HTTP: "http://proxy.example/path"}},
		{"password", Proxy{HTTP: "ftp://user:secret@proxy.example"}},
	} {
		_, err := New(Config{Store: t.TempDir(), Proxy: tt.proxy})
		if err == nil || !strings.Contains(err.Error(), "image proxy") || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v, want a refusal that keeps the password", tt.name, err)
		}
	}
}
