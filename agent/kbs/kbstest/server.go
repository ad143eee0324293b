// SPDX-License-Identifier: Apache-2.0

package kbstest

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	prefix     = "/kbs/v0/"
	cookieName = "kbs-session-id"
	tokenLife  = 5 * time.Minute
)

// Server is a broker on a loopback port.
type Server struct {
	// URL is what a client is configured with.
	URL string
	// Roots holds the certificate of a TLS server; nil for plain HTTP.
	Roots *x509.CertPool
	// Cert is that certificate as PEM.
	Cert string
	// Verify judges evidence of other TEEs than sample; nil refuses them.
	Verify func(a evidence.Attestation, tee evidence.TEE, bound evidence.ReportData) error

	// Incidents answers to those who tell of incidents, by their Authorization and the message; nil knows no such path.
	Incidents func(authorization string, body []byte) (status int, answer []byte)

	http  *httptest.Server
	other *httptest.Server // where redirects point to
	gone  chan struct{}    // closed by Close; frees handlers that hang

	// mu guards everything below.
	mu       sync.Mutex
	mode     Mode
	secrets  map[string][]byte
	single   map[string]bool // secrets that go with their first release
	sessions map[string]*state
	requests []string
	strayed  int // requests that followed a redirect
	initData []byte
	once     bool // the mode that misbehaves once has done so
}

// state is one session.
type state struct {
	tee   evidence.TEE
	nonce string // "" once used
	hash  evidence.HashAlgorithm
	key   evidence.JWK
	token string // "" before attestation
}

// Start returns a broker over plain HTTP; StartTLS one over HTTPS. The caller closes it.
func Start() *Server    { return start((*httptest.Server).Start) }
func StartTLS() *Server { return start((*httptest.Server).StartTLS) }

func start(listen func(*httptest.Server)) *Server {
	s := &Server{secrets: make(map[string][]byte), single: make(map[string]bool), sessions: make(map[string]*state), gone: make(chan struct{})}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are the point
	listen(s.http)
	s.URL = s.http.URL
	if cert := s.http.Certificate(); cert != nil {
		s.Roots = x509.NewCertPool()
		s.Roots.AddCert(cert)
		s.Cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	}
	s.other = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		s.mu.Lock()
		s.strayed++
		s.mu.Unlock()
	}))
	return s
}

// Close ends hanging requests and waits for all.
func (s *Server) Close() {
	close(s.gone)
	s.http.Close()
	s.other.Close()
}

// Put stores a secret under "repository/type/tag" or "plugin-path?query".
func (s *Server) Put(path string, secret []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secrets[path] = bytes.Clone(secret)
}

// Get returns what is stored, nil for nothing.
func (s *Server) Get(path string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.secrets[path])
}

// PutOnce is Put for a secret that is released a single time.
func (s *Server) PutOnce(path string, secret []byte) {
	s.Put(path, secret)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.single[path] = true
}

// Misbehave switches to a mode; "" is proper behaviour.
func (s *Server) Misbehave(m Mode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mode, s.once = m, false
}

// Count returns how many requests began with "METHOD path" since the last Reset.
func (s *Server) Count(start string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.HasPrefix(r, start) {
			n++
		}
	}
	return n
}

// Strayed returns how many requests followed a redirect.
func (s *Server) Strayed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.strayed
}

// InitData returns the document of the last attestation, nil if it had none.
func (s *Server) InitData() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.initData
}

// Reset starts the counts at zero.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests, s.strayed = nil, 0
}

// Forget drops all sessions, as a restart does.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// does reports whether the server is in one of these modes.
func (s *Server) does(modes ...Mode) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range modes {
		if s.mode == m {
			return true
		}
	}
	return false
}

// doesOnce is does for the first time only.
func (s *Server) doesOnce(m Mode) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.mode == m && !s.once
	s.once = s.once || first
	return first
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	path, ok := strings.CutPrefix(r.URL.Path, prefix)
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+path)
	s.mu.Unlock()
	switch {
	case !ok:
		refuse(w, http.StatusNotFound, "InvalidRequestPath", "invalid path")
	case r.Method == http.MethodPost && path == "auth":
		s.auth(w, r)
	case r.Method == http.MethodPost && path == "attest":
		s.attest(w, r)
	case r.Method == http.MethodPost && strings.HasPrefix(path, "counter/"):
		s.raise(r, path)
		s.get(w, r, path)
	case r.Method == http.MethodPost && path == "incidents" && s.Incidents != nil:
		body, err := io.ReadAll(io.LimitReader(r.Body, evidence.MaxIncidentsSize+1))
		if err != nil {
			refuse(w, http.StatusBadRequest, "InvalidRequest", err.Error())
			return
		}
		status, answer := s.Incidents(r.Header.Get("Authorization"), body)
		w.WriteHeader(status)
		w.Write(answer)
	case r.Method == http.MethodGet:
		s.get(w, r, path)
	default:
		refuse(w, http.StatusNotFound, "PluginNotFound", "no such plugin")
	}
}

func refuse(w http.ResponseWriter, status int, variant, detail string) {
	body, err := evidence.ErrorInformation{Variant: variant, Detail: detail}.Encode()
	if err != nil {
		panic(err)
	}
	w.WriteHeader(status)
	w.Write(body)
}

func (s *Server) auth(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, evidence.MaxRequestSize+1))
	if err == nil && s.lieAtAuth(w, r) {
		return
	}
	q, err := evidence.ParseRequest(body)
	if err != nil {
		refuse(w, http.StatusUnauthorized, "AttestationError", err.Error())
		return
	}
	nonce := make([]byte, 32)
	rand.Read(nonce)
	st := &state{tee: q.TEE, nonce: base64.StdEncoding.EncodeToString(nonce), hash: evidence.DefaultHash}
	if s.does(SelectSHA512) {
		st.hash = evidence.SHA512
	}
	id := hex.EncodeToString(nonce[:16])
	s.mu.Lock()
	s.sessions[id] = st
	s.mu.Unlock()
	if !s.does(NoCookie) {
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: id, Expires: time.Now().Add(tokenLife)})
	}
	s.challenge(w, st)
}

// challenge answers with the nonce, or with what the mode makes of it.
func (s *Server) challenge(w http.ResponseWriter, st *state) {
	switch {
	case s.does(LongNonce):
		fmt.Fprintf(w, `{"nonce":"%s","extra-params":""}`, strings.Repeat("n", 15<<10))
	case s.does(EmptyNonce):
		io.WriteString(w, `{"nonce":"","extra-params":""}`)
	case s.does(AuthTwoNonces):
		fmt.Fprintf(w, `{"nonce":"%s","nonce":"other","extra-params":""}`, st.nonce)
	case s.does(UnknownHash):
		fmt.Fprintf(w, `{"nonce":"%s","extra-params":{"selected-hash-algorithm":"sm3"}}`, st.nonce)
	default:
		body, err := evidence.Challenge{Nonce: st.nonce, Hash: st.hash}.Encode()
		if err != nil {
			panic(err)
		}
		w.Write(body)
	}
}

func (s *Server) attest(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, evidence.MaxAttestationSize+1))
	if err != nil || s.lieAtAttest(w, r) {
		return
	}
	st := s.sessionOf(r)
	if st == nil {
		refuse(w, http.StatusUnauthorized, "SessionNotFound", "no session")
		return
	}
	if err := s.judge(st, body); err != nil {
		refuse(w, http.StatusUnauthorized, "AttestationError", err.Error())
		return
	}
	s.mu.Lock()
	st.token = s.mint()
	token := st.token
	s.mu.Unlock()
	if s.doesOnce(OneAttestDrop) {
		panic(http.ErrAbortHandler)
	}
	answer, err := evidence.EncodeToken([]byte(token))
	if err != nil {
		panic(err)
	}
	w.Write(answer)
}

// judge checks an attestation the way a broker does; the nonce is used up first.
func (s *Server) judge(st *state, body []byte) error {
	a, err := evidence.ParseAttestation(body)
	if err != nil {
		return err
	}
	s.mu.Lock()
	nonce := st.nonce
	st.nonce = ""
	s.initData = a.InitData
	s.mu.Unlock()
	if nonce == "" || a.RuntimeData.Nonce() != nonce {
		return errors.New("nonce is not the one of this session, or was used before")
	}
	bound, err := a.RuntimeData.ReportData(st.hash)
	if err != nil {
		return err
	}
	if st.tee != evidence.Sample {
		if s.Verify == nil {
			return fmt.Errorf("no verifier for %s", st.tee)
		}
		if err := s.Verify(a, st.tee, bound); err != nil {
			return err
		}
	} else if e, err := evidence.ParseSampleEvidence(a.Evidence); err != nil {
		return err
	} else if !bytes.Equal(e.ReportData, bound.Digest()) {
		return errors.New("evidence is not bound to nonce and key")
	}
	if err := judgeDevices(a, st.hash); err != nil {
		return err
	}
	s.mu.Lock()
	st.key = a.RuntimeData.TEEKey()
	s.mu.Unlock()
	return nil
}

// judgeDevices takes sample devices alone, bound to nonce and key.
func judgeDevices(a evidence.Attestation, hash evidence.HashAlgorithm) error {
	parts, err := evidence.ParseAdditional(a.RuntimeData.AdditionalEvidence())
	if err != nil {
		return err
	}
	bound, err := a.RuntimeData.DeviceReportData(hash)
	if err != nil {
		return err
	}
	for _, part := range parts {
		e, err := evidence.ParseSampleEvidence(part.Evidence)
		if err != nil || part.Device != evidence.SampleDevice || !bytes.Equal(e.ReportData, bound.Digest()) {
			return fmt.Errorf("evidence of device %s is not bound to nonce and key", part.Device)
		}
	}
	return nil
}

// mint makes a token. Its signature is noise: clients do not check it, and this server
// knows its tokens by heart. Called with mu held.
func (s *Server) mint() string {
	now := time.Now()
	claims := fmt.Sprintf(`{"iat":%d,"nbf":%d,"exp":%d}`, now.Unix(), now.Unix(), now.Add(tokenLife).Unix())
	switch s.mode {
	case ExpiredToken:
		claims = fmt.Sprintf(`{"iat":%d,"exp":%d}`, now.Add(-time.Hour).Unix(), now.Add(-time.Minute).Unix())
	case EternalToken:
		claims = fmt.Sprintf(`{"iat":%d}`, now.Unix())
	case FutureToken:
		claims = fmt.Sprintf(`{"nbf":%d,"exp":%d}`, now.Add(time.Hour).Unix(), now.Add(2*time.Hour).Unix())
	case BadToken:
		return "not.a token\r\nX: y"
	}
	noise := make([]byte, 64)
	rand.Read(noise)
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(`{"typ":"JWT","alg":"ES256"}`)) + "." + b64([]byte(claims)) + "." + b64(noise)
}

// sessionOf finds the session by cookie, or by token, like Trustee in that order.
func (s *Server) sessionOf(r *http.Request) *state {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, err := r.Cookie(cookieName); err == nil && s.sessions[c.Value] != nil {
		return s.sessions[c.Value]
	}
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		for _, st := range s.sessions {
			if st.token == token && token != "" {
				return st
			}
		}
	}
	return nil
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, path string) {
	if s.lieAtGet(w, r) {
		return
	}
	st := s.sessionOf(r)
	s.mu.Lock()
	var key evidence.JWK
	if st != nil && st.token != "" {
		key = st.key
	}
	name := strings.TrimPrefix(path, "resource/")
	if r.URL.RawQuery != "" {
		name += "?" + r.URL.RawQuery
	}
	secret, found := s.secrets[name]
	if found && !key.IsZero() && s.single[name] {
		delete(s.secrets, name)
		delete(s.single, name)
	}
	s.mu.Unlock()
	switch {
	case key.IsZero() || s.doesOnce(ForgetsOnce):
		refuse(w, http.StatusUnauthorized, "TokenNotFound", "not attested")
	case !found:
		refuse(w, http.StatusNotFound, "ResourceNotFound", "no such resource")
	default:
		w.Write(s.seal(key, secret))
	}
}

// raise changes a counter, which is a secret under counter/VOLUME, from what it was put as to what is asked for.
func (s *Server) raise(r *http.Request, path string) {
	body, err := io.ReadAll(io.LimitReader(r.Body, evidence.MaxCounterSize))
	if err != nil {
		return
	}
	change, err := evidence.ParseCounterChange(body)
	st := s.sessionOf(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || st == nil || st.token == "" {
		return
	}
	var now evidence.Counter
	if kept, found := s.secrets[path]; found {
		now, err = evidence.ParseCounter(kept)
	}
	if err == nil && now.Generation == change.From {
		s.secrets[path] = evidence.Counter{Generation: change.To}.Encode()
	}
}
