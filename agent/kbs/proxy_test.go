// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

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
	for _, cfg := range []Config{
		{URL: "http://kbs.example:8080", AllowPlainHTTP: true},
		{URL: "https://kbs.example:8443", Roots: x509.NewCertPool()},
	} {
		base, err := url.Parse(cfg.URL)
		if err != nil {
			t.Fatal(err)
		}
		if u, err := http.ProxyFromEnvironment(&http.Request{URL: base}); err != nil || u == nil || u.String() != proxy {
			t.Fatalf("the variables name no proxy for %s: got %v, %v", base, u, err)
		}
		cfg.Attester = &sampleAttester{}
		client, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		client.firstPause = time.Millisecond
		var mu sync.Mutex
		var addresses []string
		client.transport.DialContext = func(_ context.Context, _, address string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			addresses = append(addresses, address)
			return nil, errors.New("no network here")
		}
		if _, err := client.Key(t.Context(), uri); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: got error %v, want %v", base, err, ErrUnavailable)
		}
		slices.Sort(addresses)
		if got := slices.Compact(addresses); !slices.Equal(got, []string{base.Host}) {
			t.Errorf("%s: dialled %q", base, got)
		}
	}
}
