// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	jsonstd "encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

// asServer is an attestation service that judges sample evidence as CoCo's does.
type asServer struct {
	answer func(w http.ResponseWriter) // nil: a token
	asked  atomic.Int32
	last   atomic.Pointer[string] // report data of the last evidence
}

func (s *asServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked.Add(1)
	var q struct {
		Requests []struct {
			TEE     string `json:"tee"`
			Proof   string `json:"evidence"`
			Runtime struct {
				Raw string `json:"raw"`
			} `json:"runtime_data"`
			Hash string `json:"runtime_data_hash_algorithm"`
			Init struct {
				TOML string `json:"init_data_toml"`
			} `json:"init_data"`
		} `json:"verification_requests"`
		Policies []string `json:"policy_ids"`
	}
	body, err := io.ReadAll(r.Body)
	if err != nil || r.Method != http.MethodPost || r.URL.Path != "/as/attestation" || json.Unmarshal(body, &q) != nil || len(q.Requests) != 1 || q.Policies == nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	one := q.Requests[0]
	proof, err1 := base64.RawURLEncoding.DecodeString(one.Proof)
	raw, err2 := base64.RawURLEncoding.DecodeString(one.Runtime.Raw)
	sample, err3 := evidence.ParseSampleEvidence(proof)
	sum := sha512.Sum384(raw)
	if errors.Join(err1, err2, err3) != nil || one.TEE != "sample" || one.Hash != "sha384" || one.Init.TOML != "the initdata" || !bytes.Equal(sample.ReportData, sum[:]) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	text := string(sample.ReportData)
	s.last.Store(&text)
	if s.answer != nil {
		s.answer(w)
		return
	}
	_, _ = io.WriteString(w, "aGVhZA.Ym9keQ.c2ln\n")
}

func newAS(t *testing.T, s *asServer) *AttestationService {
	t.Helper()
	server := httptest.NewTLSServer(s)
	t.Cleanup(server.Close)
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	service, err := NewAttestationService(Config{URL: server.URL + "/as", Roots: roots, Attester: &sampleAttester{}, InitData: []byte("the initdata")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(service.Close)
	service.client.firstPause = 1
	return service
}

func TestAttestationServiceToken(t *testing.T) {
	server := &asServer{}
	service := newAS(t, server)
	var seen []string
	for range 2 {
		token, err := service.Token(t.Context())
		if err != nil || string(token) != "aGVhZA.Ym9keQ.c2ln" {
			t.Fatalf("got %q, %v", token, err)
		}
		seen = append(seen, *server.last.Load())
	}
	if seen[0] == seen[1] {
		t.Error("two requests are bound to the same bytes")
	}
	if _, err := NewAttestationService(Config{URL: "http://127.0.0.1:1", Attester: &sampleAttester{}}); err == nil {
		t.Error("plain HTTP is taken unasked")
	}
}

func TestAttestationServiceLies(t *testing.T) {
	text := func(s string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = io.WriteString(w, s) }
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter)
		want   error
		asked  int32
	}{
		"refused":           {func(w http.ResponseWriter) { w.WriteHeader(http.StatusUnauthorized) }, ErrDenied, 1},
		"busy":              {func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) }, ErrUnavailable, maxAttempts},
		"sent elsewhere":    {func(w http.ResponseWriter) { w.Header().Set("Location", "/x"); w.WriteHeader(302) }, ErrProtocol, 1},
		"nothing":           {text(""), ErrProtocol, 1},
		"JSON":              {text(`{"token":"a.b.c"}`), ErrProtocol, 1},
		"two parts":         {text("YQ.YQ"), ErrProtocol, 1},
		"no signature":      {text("YQ.YQ."), ErrProtocol, 1},
		"padded base64":     {text("YQ==.YQ.YQ"), ErrProtocol, 1},
		"endless":           {text(strings.Repeat("YWFh", maxASToken)), ErrProtocol, 1},
		"not canonical b64": {text("YR.YQ.YQ"), ErrProtocol, 1},
	} {
		server := &asServer{answer: c.answer}
		token, err := newAS(t, server).Token(t.Context())
		if !errors.Is(err, c.want) || token != nil || server.asked.Load() != c.asked {
			t.Errorf("%s: got %q, %v after %d requests, want %v", name, token, err, server.asked.Load(), c.want)
		}
	}
}

// What an attestation service is shown opens no handshake with a KBS: the service, or
// whoever answers in its place, cannot attest in the guest's name.
func TestAttestationServiceEvidenceOpensNoHandshake(t *testing.T) {
	server := &asServer{}
	if _, err := newAS(t, server).Token(t.Context()); err != nil {
		t.Fatal(err)
	}
	broker := kbstest.Start()
	defer broker.Close()
	thief, err := New(Config{URL: broker.URL, AllowPlainHTTP: true, Attester: &replaying{data: []byte(*server.last.Load())}})
	if err != nil {
		t.Fatal(err)
	}
	defer thief.Close()
	if token, err := thief.Token(t.Context()); err == nil {
		t.Errorf("got a token: %s", token)
	}
}

// replaying shows evidence that was made for somebody else.
type replaying struct{ data []byte }

func (*replaying) TEE() evidence.TEE { return evidence.Sample }

func (r *replaying) Evidence(context.Context, evidence.ReportData) (jsonstd.RawMessage, error) {
	return evidence.SampleEvidence{SVN: "1", ReportData: r.data}.Encode()
}
