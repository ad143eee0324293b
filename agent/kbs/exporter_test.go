// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/kbs/kbstest"
)

// readKey reads a key as confidential-data-hub does: PKCS #1, then PKCS #8.
func readKey(t *testing.T, text []byte) teeKey {
	t.Helper()
	block, rest := pem.Decode(text)
	if block == nil || len(rest) > 0 {
		t.Fatalf("not one PEM block: %q", text)
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return teeKey{rsa: key}
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	switch key := parsed.(type) {
	case *ecdsa.PrivateKey:
		ec, err := key.ECDH()
		if err != nil {
			t.Fatal(err)
		}
		return teeKey{ec: ec}
	case *ecdh.PrivateKey:
		return teeKey{ec: key}
	case *rsa.PrivateKey:
		t.Error("an RSA key in PKCS #8, which the data hub does not read")
	}
	return teeKey{}
}

func newExporter(t *testing.T, server *kbstest.Server, algorithm KeyAlgorithm) *Exporter {
	t.Helper()
	e, err := NewExporter(Config{URL: server.URL, AllowPlainHTTP: true, Attester: &sampleAttester{}, KeyAlgorithm: algorithm})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

func TestExportedTokenAndKeyFetchSecrets(t *testing.T) {
	for _, algorithm := range []KeyAlgorithm{ECP256, ECP521, RSA2048} {
		server, client := newPair(t, func(c *Config) { c.KeyAlgorithm = algorithm })
		wantSecret(t, client)
		token, key, err := newExporter(t, server, algorithm).Token(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+"/kbs/v0/resource/default/key/1", nil)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Authorization", "Bearer "+string(token))
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readKey(t, key).open(body); err != nil || string(got) != secret {
			t.Errorf("%s: got %q, %v", algorithm, got, err)
		}
		own, err := client.current.key.export()
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(own, key) || bytes.Equal(client.current.token, token) {
			t.Errorf("%s: the key or token of the guest's own session was handed out", algorithm)
		}
	}
}

func TestExportsShareAHandshakeForAWhile(t *testing.T) {
	server, _ := newPair(t, nil)
	e := newExporter(t, server, ECP256)
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, _, err := e.Token(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := server.Count("POST attest"); n != 1 {
		t.Errorf("%d handshakes for 100 callers, want 1", n)
	}
	before, _, err := e.Token(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e.mu.Lock()
	e.made = time.Now().Add(-exportAge)
	e.mu.Unlock()
	after, _, err := e.Token(t.Context())
	if err != nil || bytes.Equal(before, after) || server.Count("POST attest") != 2 {
		t.Errorf("a token that was refused would be handed out again: %v, %d handshakes", err, server.Count("POST attest"))
	}
	server.Misbehave(kbstest.AttestDenied)
	e.mu.Lock()
	e.made = time.Time{}
	e.mu.Unlock()
	if token, key, err := e.Token(t.Context()); err == nil || token != nil || key != nil {
		t.Errorf("denied and handed out: %q, %q", token, key)
	}
}
