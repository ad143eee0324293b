// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/keyprovider/vault"
	"github.com/casemate/casemate/keyprovider/vault/vaulttest"
)

type secrets map[string][]byte

func (s secrets) Key(_ context.Context, uri string) ([]byte, error) {
	if secret, ok := s[uri]; ok {
		return bytes.Clone(secret), nil
	}
	return nil, errors.New("no such secret")
}

// What keygen and seal write is what a guest opens.
func TestSealedForAGuest(t *testing.T) {
	prefix := filepath.Join(t.TempDir(), "owner")
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"keygen", "--out", prefix}, streams{out: &out, err: &errs}); code != exitDone {
		t.Fatalf("keygen: %s", &errs)
	}
	out.Reset()
	args := []string{"seal", "kbs:///app/config/x", "--key", prefix + ".key", "--key-id", "kbs:///app/signing/1", "--jwk-out", prefix + ".jwk"}
	if code := run(t.Context(), args, streams{out: &out, err: &errs}); code != exitDone {
		t.Fatalf("seal: %s", &errs)
	}
	jwk, err := os.ReadFile(prefix + ".jwk")
	if err != nil {
		t.Fatal(err)
	}
	keys := secrets{"kbs:///app/signing/1": jwk, "kbs:///app/config/x": []byte("hunter2")}
	got, err := (&keyprovider.Unsealer{Keys: keys}).Unseal(t.Context(), bytes.TrimSpace(out.Bytes()))
	if err != nil || string(got) != "hunter2" {
		t.Fatalf("got %q, %v", got, err)
	}
	out.Reset()
	if code := run(t.Context(), args, streams{out: &out, err: &errs}); code != exitFailed || out.Len() != 0 {
		t.Errorf("a JWK that exists was overwritten: exit code %d", code)
	}
	if code := run(t.Context(), args[:2], streams{out: &out, err: &errs}); code != exitUsage {
		t.Errorf("without a key: exit code %d", code)
	}
}

// An envelope and a KV entry, from a vault that is asked by the owner and by the guest.
func TestSealedWithAVault(t *testing.T) {
	server := vaulttest.Start()
	defer server.Close()
	server.Put("app/db", map[string]any{"password": "of the vault"})
	dir := t.TempDir()
	prefix := filepath.Join(dir, "owner")
	var errs bytes.Buffer
	if code := run(t.Context(), []string{"keygen", "--out", prefix}, streams{out: &errs, err: &errs}); code != exitDone {
		t.Fatalf("keygen: %s", &errs)
	}
	for name, text := range map[string]string{"secret": "hunter2", "ca": string(server.PEM), "token": vaulttest.Token + "\n", "wrong": "hvs.other"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string) string { return filepath.Join(dir, name) }
	signed := []string{"--key", prefix + ".key", "--key-id", "kbs:///app/signing/1"}
	server0 := []string{"--vault", server.URL, "--vault-ca", file("ca")}
	seal := func(args ...string) (int, []byte) {
		var out bytes.Buffer
		errs.Reset()
		code := run(t.Context(), append([]string{"seal"}, args...), streams{out: &out, err: &errs})
		return code, bytes.TrimSpace(out.Bytes())
	}
	envelope := append(append([]string{file("secret"), "--transit-key", "app", "--vault-token-file", file("token"), "--jwk-out", file("jwk")}, server0...), signed...)
	stored := append([]string{"vault://app/db", "--field", "password", "--version", "1"}, signed...)
	texts := map[string][]byte{}
	for want, args := range map[string][]string{"hunter2": envelope, "of the vault": stored} {
		code, text := seal(args...)
		if code != exitDone || bytes.Contains(text, []byte("hunter2")) {
			t.Fatalf("%q: exit code %d, %s: %s", args, code, text, &errs)
		}
		texts[want] = text
	}
	jwk, err := os.ReadFile(file("jwk"))
	if err != nil {
		t.Fatal(err)
	}
	client, err := vault.New(vault.Config{URL: server.URL, Roots: server.Roots, Token: func(context.Context) ([]byte, error) { return []byte(vaulttest.Token), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	guest := &keyprovider.Unsealer{
		Keys: secrets{"kbs:///app/signing/1": jwk},
		KMS:  map[string]keyprovider.KMS{"vault": client}, Stores: map[string]keyprovider.SecretStore{"vault": client},
	}
	for want, text := range texts {
		if got, err := guest.Unseal(t.Context(), text); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	for name, c := range map[string]struct {
		args []string
		code int
	}{
		"wrong token":         {append(append([]string{file("secret"), "--transit-key", "app", "--vault-token-file", file("wrong")}, server0...), signed...), exitFailed},
		"no such key":         {append(append([]string{file("secret"), "--transit-key", "none", "--vault-token-file", file("token")}, server0...), signed...), exitFailed},
		"no CA":               {append([]string{file("secret"), "--transit-key", "app", "--vault", server.URL, "--vault-token-file", file("token")}, signed...), exitFailed},
		"no vault":            {append([]string{file("secret"), "--transit-key", "app"}, signed...), exitUsage},
		"entry without field": {append([]string{"vault://app/db"}, signed...), exitUsage},
		"field of a resource": {append([]string{"kbs:///a/b/c", "--field", "x"}, signed...), exitUsage},
		"entry that climbs":   {append([]string{"vault://../sys", "--field", "x"}, signed...), exitFailed},
	} {
		if code, text := seal(c.args...); code != c.code || len(text) > 0 || bytes.Contains(errs.Bytes(), []byte(vaulttest.Token)) {
			t.Errorf("%s: exit code %d, %s: %s", name, code, text, &errs)
		}
	}
}
