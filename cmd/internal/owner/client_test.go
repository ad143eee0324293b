// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    Config
		want string
	}{
		{"plain http", Config{URL: "http://127.0.0.1:1", Token: []byte("t")}, "plain http, which was not allowed"},
		{"other scheme", Config{URL: "ftp://127.0.0.1", Token: []byte("t")}, "want https"},
		{"no host", Config{URL: "keybroker:8080", Token: []byte("t")}, "URL with a host"},
		{"user", Config{URL: "https://a:b@127.0.0.1", Token: []byte("t")}, "user, query or fragment"},
		{"query", Config{URL: "https://127.0.0.1?a", Token: []byte("t")}, "user, query or fragment"},
		{"no token", Config{URL: "https://127.0.0.1"}, "no owner token"},
		{"token with a line break", Config{URL: "https://127.0.0.1", Token: []byte("a\nb")}, "characters"},
	} {
		if _, err := New(tt.c); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// lyingServer answers every request the same way.
func lyingServer(t *testing.T, answer http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(answer)
	t.Cleanup(srv.Close)
	c, err := New(Config{URL: srv.URL + "/", AllowPlainHTTP: true, Token: []byte("token")})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnswersThatLie(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		answer     http.HandlerFunc
	}{
		{"redirect", "redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}},
		{"endless", "over", func(w http.ResponseWriter, _ *http.Request) {
			for range maxAnswer/1024 + 2 {
				if _, err := w.Write(make([]byte, 1024)); err != nil {
					return
				}
			}
		}},
		{"not JSON", "parsing answer", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }},
		{"unknown member", "parsing answer", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"workloads":[],"x":1}`)) }},
		{"500 without a body", "500 Internal Server Error", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }},
		{"401 with a reason", "401: the reason", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(401)
			w.Write([]byte(`{"code":"unauthorized","detail":"the reason"}`))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := lyingServer(t, tt.answer).Workloads(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "token") && tt.name != "401 with a reason" {
				t.Errorf("error names the token: %v", err)
			}
		})
	}
}

func TestNotFound(t *testing.T) {
	c := lyingServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(404)
		w.Write([]byte(`{"code":"not-found","detail":"nothing there"}`))
	})
	_, err := c.Workload(t.Context(), "web")
	if !errors.Is(err, ErrNotFound) || !strings.Contains(err.Error(), "nothing there") {
		t.Errorf("got %v", err)
	}
}

// What is wrong is said before anything is sent.
func TestNothingIsSentThatIsWrong(t *testing.T) {
	c := lyingServer(t, func(http.ResponseWriter, *http.Request) { t.Error("a request was sent") })
	ctx := t.Context()
	_, err := c.Register(ctx, Registration{ID: "web"})
	_, err2 := c.Workload(ctx, "../x")
	_, err3 := c.PutSecret(ctx, "web", "a/../b", []byte("x"))
	_, err4 := c.PutSecret(ctx, "web", "a/b/c", nil)
	_, err5 := c.PutSecret(ctx, "web", "a/b/c", make([]byte, MaxSecretSize+1))
	_, err6 := c.Secrets(ctx, "")
	for i, err := range []error{err, err2, err3, err4, err5, err6, c.Unregister(ctx, "A"), c.DeleteSecret(ctx, "web", "x")} {
		if err == nil {
			t.Errorf("call %d has no error", i)
		}
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	token, err := ReadToken(write("token", " abc\n"))
	if err != nil || string(token) != "abc" {
		t.Errorf("token %q, %v", token, err)
	}
	for _, text := range []string{"", " \n", strings.Repeat("a", maxTokenFile+1)} {
		if _, err := ReadToken(write("bad", text)); err == nil {
			t.Errorf("a token file of %d bytes is taken", len(text))
		}
	}
	if _, err := ReadRoots(write("roots", "not PEM")); err == nil {
		t.Error("roots without a certificate are taken")
	}
	if _, err := ReadRoots(filepath.Join(dir, "absent")); err == nil {
		t.Error("absent roots are taken")
	}
}
