// SPDX-License-Identifier: Apache-2.0

package vault_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/keyprovider/vault"
	"github.com/casemate/casemate/keyprovider/vault/vaulttest"
)

func token(context.Context) ([]byte, error) { return []byte(vaulttest.Token + "\n"), nil }

func newPair(t testing.TB, change func(*vault.Config)) (*vaulttest.Server, *vault.Client) {
	t.Helper()
	s := vaulttest.Start()
	t.Cleanup(s.Close)
	cfg := vault.Config{URL: s.URL, Roots: s.Roots, Token: token}
	if change != nil {
		change(&cfg)
	}
	c, err := vault.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return s, c
}

var none = []byte("{}")

func TestTransit(t *testing.T) {
	s, c := newPair(t, func(c *vault.Config) { c.Namespace = "team" })
	plain, wrapped, err := c.DataKey(t.Context(), "app")
	if err != nil || len(plain) != 32 || !bytes.HasPrefix(wrapped, []byte("vault:v1:")) {
		t.Fatalf("got %d bytes, %q, %v", len(plain), wrapped, err)
	}
	got, err := c.Decrypt(t.Context(), "app", wrapped, none, none)
	if err != nil || !bytes.Equal(got, plain) {
		t.Fatalf("got %d bytes, %v", len(got), err)
	}
	want := []string{"POST team/v1/transit/datakey/plaintext/app", "POST team/v1/transit/decrypt/app"}
	if got := s.Requests(); !slices.Equal(got, want) {
		t.Errorf("requests %q, want %q", got, want)
	}
	altered := append(bytes.Clone(wrapped[:len(wrapped)-4]), "AAAA"...)
	for name, c2 := range map[string]struct {
		key                         string
		wrapped, settings, annotate []byte
		want                        error
	}{
		"altered":                    {"app", altered, none, none, vault.ErrAnswer},
		"another key":                {"other", wrapped, none, none, vault.ErrAnswer},
		"key that climbs":            {"../../sys/raw", wrapped, none, none, vault.ErrRequest},
		"key with a query":           {"app?x", wrapped, none, none, vault.ErrRequest},
		"no key":                     {"", wrapped, none, none, vault.ErrRequest},
		"settings move the server":   {"app", wrapped, []byte(`{"url":"https://evil"}`), none, vault.ErrRequest},
		"settings null":              {"app", wrapped, []byte("null"), none, vault.ErrRequest},
		"annotations":                {"app", wrapped, none, []byte(`{"context":"AA=="}`), vault.ErrRequest},
		"wrapped by another service": {"app", []byte("AQICAHh"), none, none, vault.ErrRequest},
		"wrapped with a quote":       {"app", []byte(`vault:v1:AA","x":"`), none, none, vault.ErrRequest},
		"wrapped, no version":        {"app", []byte("vault:v:AAAA"), none, none, vault.ErrRequest},
		"wrapped, huge":              {"app", append([]byte("vault:v1:"), bytes.Repeat([]byte("A"), 8192)...), none, none, vault.ErrRequest},
	} {
		if got, err := c.Decrypt(t.Context(), c2.key, c2.wrapped, c2.settings, c2.annotate); !errors.Is(err, c2.want) || got != nil {
			t.Errorf("%s: got %x, %v, want %v", name, got, err, c2.want)
		}
	}
}

func TestKV(t *testing.T) {
	s, c := newPair(t, nil)
	s.Put("app/db", map[string]any{"password": "old"})
	s.Put("app/db", map[string]any{"password": "n\"ew\n", "other": "x", "number": 1})
	for name, tt := range map[string]struct {
		path, annotations, want string
		err                     error
	}{
		"newest":               {"app/db", `{"field":"password"}`, "n\"ew\n", nil},
		"by version":           {"app/db", `{"field":"password","version":1}`, "old", nil},
		"no such version":      {"app/db", `{"field":"password","version":7}`, "", vault.ErrNotFound},
		"no such field":        {"app/db", `{"field":"Password"}`, "", vault.ErrNotFound},
		"no such entry":        {"app/none", `{"field":"password"}`, "", vault.ErrNotFound},
		"field that is a list": {"app/db", `{"field":"number"}`, "", vault.ErrAnswer},
		"no field":             {"app/db", `{}`, "", vault.ErrRequest},
		"field twice":          {"app/db", `{"field":"a","field":"password"}`, "", vault.ErrRequest},
		"unknown annotation":   {"app/db", `{"field":"password","wrap_ttl":"1h"}`, "", vault.ErrRequest},
		"version 0":            {"app/db", `{"field":"password","version":0}`, "", vault.ErrRequest},
		"climbing":             {"app/../../sys/seal", `{"field":"password"}`, "", vault.ErrRequest},
		"escaped":              {"app%2fdb", `{"field":"password"}`, "", vault.ErrRequest},
		"absolute":             {"/app/db", `{"field":"password"}`, "", vault.ErrRequest},
	} {
		got, err := c.Secret(t.Context(), tt.path, none, []byte(tt.annotations))
		if !errors.Is(err, tt.err) || string(got) != tt.want {
			t.Errorf("%s: got %q, %v, want %q, %v", name, got, err, tt.want, tt.err)
		}
	}
}

func TestLies(t *testing.T) {
	s, c := newPair(t, nil)
	s.Put("app/db", map[string]any{"password": "x"})
	_, wrapped, err := c.DataKey(t.Context(), "app")
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[vaulttest.Mode]error{
		vaulttest.Sealed: vault.ErrUnavailable, vaulttest.Redirect: vault.ErrAnswer, vaulttest.Garbage: vault.ErrAnswer,
		vaulttest.Huge: vault.ErrAnswer, vaulttest.NoData: vault.ErrAnswer, vaulttest.TwoData: vault.ErrAnswer, vaulttest.NoText: vault.ErrAnswer,
	} {
		s.Misbehave(mode)
		key, err := c.Decrypt(t.Context(), "app", wrapped, none, none)
		if !errors.Is(err, want) || key != nil || strings.Contains(err.Error(), vaulttest.Token) {
			t.Errorf("%s: decrypt: got %x, %v, want %v", mode, key, err, want)
		}
		secret, err := c.Secret(t.Context(), "app/db", none, []byte(`{"field":"password"}`))
		if !errors.Is(err, want) || secret != nil || strings.Contains(err.Error(), vaulttest.Token) {
			t.Errorf("%s: secret: got %q, %v, want %v", mode, secret, err, want)
		}
	}
	if n := s.Strayed(); n != 0 {
		t.Errorf("%d requests followed a redirect with the token", n)
	}
	s.Misbehave(vaulttest.OtherAge)
	if got, err := c.Secret(t.Context(), "app/db", none, []byte(`{"field":"password","version":1}`)); !errors.Is(err, vault.ErrAnswer) {
		t.Errorf("another version: got %q, %v", got, err)
	}
	s.Misbehave(vaulttest.NotString)
	if got, err := c.Secret(t.Context(), "app/db", none, []byte(`{"field":"password"}`)); !errors.Is(err, vault.ErrAnswer) {
		t.Errorf("field is a list: got %q, %v", got, err)
	}
	s.Misbehave(vaulttest.ShortKey)
	if key, _, err := c.DataKey(t.Context(), "app"); !errors.Is(err, vault.ErrAnswer) || key != nil {
		t.Errorf("short data key: %v", err)
	}
}

func TestTokensAndServersThatAreRefused(t *testing.T) {
	bad := func(text string, err error) func(*vault.Config) {
		return func(c *vault.Config) {
			c.Token = func(context.Context) ([]byte, error) { return []byte(text), err }
		}
	}
	broken := errors.New("no token today")
	for name, tt := range map[string]struct {
		change func(*vault.Config)
		want   error
	}{
		"wrong token":       {bad("hvs.other", nil), vault.ErrDenied},
		"token source down": {bad("", broken), broken},
		"another server":    {func(c *vault.Config) { c.Roots = x509.NewCertPool() }, vault.ErrUnavailable},
	} {
		s, c := newPair(t, tt.change)
		s.Put("a", map[string]any{"f": "x"})
		if got, err := c.Secret(t.Context(), "a", none, []byte(`{"field":"f"}`)); !errors.Is(err, tt.want) || got != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, text := range map[string]string{"no token": "\n", "token of two lines": "a\r\nX-Evil: b", "token over its cap": strings.Repeat("x", 9000)} {
		s, c := newPair(t, bad(text, nil))
		if _, err := c.Secret(t.Context(), "a", none, []byte(`{"field":"f"}`)); err == nil || len(s.Requests()) > 0 {
			t.Errorf("%s: %v after %q", name, err, s.Requests())
		}
	}
	roots := x509.NewCertPool()
	for name, cfg := range map[string]vault.Config{
		"plain HTTP":       {URL: "http://v", Roots: roots, Token: token},
		"not pinned":       {URL: "https://v", Token: token},
		"no token":         {URL: "https://v", Roots: roots},
		"a path":           {URL: "https://v/v1", Roots: roots, Token: token},
		"password in it":   {URL: "https://u:p@v", Roots: roots, Token: token},
		"mount that climb": {URL: "https://v", Roots: roots, Token: token, KV: "../sys"},
		"namespace header": {URL: "https://v", Roots: roots, Token: token, Namespace: "a\r\nb"},
	} {
		if _, err := vault.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"data":{"a":"b"},"metadata":{"version":1}}`), "a")
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		if got, err := vault.Field(bytes.Clone(raw), name, nil); err == nil && len(got) > len(raw) {
			t.Fatalf("%d bytes out of %d", len(got), len(raw))
		}
	})
}
