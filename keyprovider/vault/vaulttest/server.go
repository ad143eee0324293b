// SPDX-License-Identifier: Apache-2.0

// Package vaulttest is a vault in the test's own process. It follows the documented HTTP
// API of HashiCorp Vault and OpenBao for the transit engine (datakey, decrypt) and the KV
// engine version 2 (reading), with real encryption and the documented statuses. On request
// it misbehaves in one way. Only tests may import it.
package vaulttest

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
)

// Token is the only token that is accepted.
const Token = "hvs.canary-token-of-the-vault"

// Mode is one way to misbehave. The zero value is none.
type Mode string

// What can go wrong.
const (
	Sealed    Mode = "sealed"          // 503
	Redirect  Mode = "redirect"        // 307 to another origin, as a standby node
	Garbage   Mode = "garbage"         // 200 and no JSON, with the token in it
	Huge      Mode = "huge"            // endless
	NoData    Mode = "no data"         // 200 without data
	TwoData   Mode = "data twice"      // the member twice
	NoText    Mode = "no plaintext"    // data without it
	OtherAge  Mode = "another version" // of a KV entry than asked for
	ShortKey  Mode = "data key too short"
	NotString Mode = "field no string"
)

// Server is a vault on a loopback port, over TLS.
type Server struct {
	// URL is what a client is configured with, Roots and PEM its certificate.
	URL   string
	Roots *x509.CertPool
	PEM   []byte

	http  *httptest.Server
	other *httptest.Server

	mu       sync.Mutex
	mode     Mode
	key      []byte
	entries  map[string][]map[string]any
	strayed  int
	requests []string
}

// Start returns a vault with one transit key, "app". The caller closes it.
func Start() *Server {
	s := &Server{key: make([]byte, 32), entries: map[string][]map[string]any{}}
	rand.Read(s.key)
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are the point
	s.http.StartTLS()
	s.URL, s.Roots = s.http.URL, x509.NewCertPool()
	s.Roots.AddCert(s.http.Certificate())
	s.PEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw})
	s.other = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.mu.Lock()
		s.strayed++
		s.mu.Unlock()
	}))
	return s
}

// Close waits for running requests.
func (s *Server) Close() {
	s.http.Close()
	s.other.Close()
}

// Put writes the next version of a KV entry.
func (s *Server) Put(path string, fields map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries[path] = append(s.entries[path], fields)
}

// Misbehave switches to a mode; "" is proper behaviour.
func (s *Server) Misbehave(m Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode = m
}

// Strayed returns how many requests followed a redirect.
func (s *Server) Strayed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strayed
}

// Requests returns method, namespace and path with query of each request.
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.requests...)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, r.Method+" "+r.Header.Get("X-Vault-Namespace")+r.URL.RequestURI())
	if s.lie(w, r) {
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1/")
	switch entry, kv := strings.CutPrefix(path, "secret/data/"); {
	case !ok:
		refuse(w, http.StatusNotFound)
	case r.Header.Get("X-Vault-Token") != Token:
		refuse(w, http.StatusForbidden, "permission denied")
	case r.Method == http.MethodPost && path == "transit/datakey/plaintext/app":
		s.dataKey(w, r)
	case r.Method == http.MethodPost && path == "transit/decrypt/app":
		s.decrypt(w, r)
	case r.Method == http.MethodPost && strings.HasPrefix(path, "transit/"):
		refuse(w, http.StatusBadRequest, "encryption key not found")
	case r.Method == http.MethodGet && kv:
		s.read(w, r, entry)
	default:
		refuse(w, http.StatusNotFound)
	}
}

func (s *Server) lie(w http.ResponseWriter, r *http.Request) bool {
	switch s.mode {
	case Sealed:
		refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
	case Redirect:
		http.Redirect(w, r, s.other.URL+r.URL.Path, http.StatusTemporaryRedirect)
	case Garbage:
		io.WriteString(w, "<html>"+r.Header.Get("X-Vault-Token"))
	case Huge:
		for r.Context().Err() == nil {
			if _, err := w.Write(bytes.Repeat([]byte(" "), 64<<10)); err != nil {
				break
			}
		}
	case NoData:
		io.WriteString(w, `{"request_id":"x","data":null}`)
	case TwoData:
		io.WriteString(w, `{"data":{"plaintext":"AAAA"},"data":{"plaintext":"AAAA"}}`)
	case NoText:
		io.WriteString(w, `{"data":{}}`)
	default:
		return false
	}
	return true
}

func refuse(w http.ResponseWriter, status int, errs ...string) {
	w.WriteHeader(status)
	answer(w, map[string]any{"errors": append([]string{}, errs...)})
}

func answer(w io.Writer, body any) {
	raw, err := json.Marshal(body)
	if err != nil {
		panic(err)
	}
	_, _ = w.Write(raw) // a client that left needs no answer
}

// respond wraps data as every answer of the API does.
func respond(w io.Writer, data any) {
	answer(w, map[string]any{"request_id": "0", "lease_id": "", "renewable": false, "lease_duration": 0, "data": data, "wrap_info": nil, "warnings": nil, "auth": nil})
}

func (s *Server) aead() cipher.AEAD {
	block, err := aes.NewCipher(s.key)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (s *Server) dataKey(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Bits int `json:"bits"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Bits != 256 {
		refuse(w, http.StatusBadRequest, "invalid bit length")
		return
	}
	key, nonce := make([]byte, 32), make([]byte, 12)
	rand.Read(key)
	rand.Read(nonce)
	if s.mode == ShortKey {
		key = key[:16]
	}
	wrapped := s.aead().Seal(nonce, nonce, key, nil)
	respond(w, map[string]any{
		"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(wrapped),
		"plaintext":  base64.StdEncoding.EncodeToString(key), "key_version": 1,
	})
}

func (s *Server) decrypt(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Ciphertext string `json:"ciphertext"`
	}
	err := json.NewDecoder(r.Body).Decode(&in)
	text, ok := strings.CutPrefix(in.Ciphertext, "vault:v1:")
	wrapped, bad := base64.StdEncoding.DecodeString(text)
	if err != nil || !ok || bad != nil || len(wrapped) < 12 {
		refuse(w, http.StatusBadRequest, "invalid ciphertext: no prefix")
		return
	}
	plain, err := s.aead().Open(nil, wrapped[:12], wrapped[12:], nil)
	if err != nil {
		refuse(w, http.StatusBadRequest, "cipher: message authentication failed")
		return
	}
	respond(w, map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)})
}

func (s *Server) read(w http.ResponseWriter, r *http.Request, path string) {
	versions := s.entries[path]
	n := len(versions)
	if text := r.URL.Query().Get("version"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			refuse(w, http.StatusBadRequest, fmt.Sprint(err))
			return
		}
	}
	if n < 1 || n > len(versions) {
		refuse(w, http.StatusNotFound)
		return
	}
	fields := versions[n-1]
	if s.mode == OtherAge {
		n++
	}
	if s.mode == NotString {
		fields = map[string]any{"password": []string{"a"}}
	}
	respond(w, map[string]any{"data": fields, "metadata": map[string]any{
		"created_time": "2026-01-01T00:00:00Z", "custom_metadata": nil, "deletion_time": "", "destroyed": false, "version": n,
	}})
}
