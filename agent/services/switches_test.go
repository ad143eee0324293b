// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	aa "github.com/casemate/casemate/agent/api/attestation"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

// door is an attacker inside the guest: a key broker client that has its evidence from
// a public door, bound to a nonce and a key of the attacker's choice.
type door func(ctx context.Context, data []byte) ([]byte, error)

func (door) TEE() evidence.TEE { return evidence.Sample }

func (d door) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return d(ctx, r.Digest())
}

func rest(t *testing.T, s *REST, path string) (int, string) {
	t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	r.RemoteAddr = "127.0.0.1:5"
	w := httptest.NewRecorder()
	s.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// Through no public door can evidence be had that opens a handshake, unless measured
// configuration asks for raw evidence: then through every one.
func TestEvidenceOfThePublicDoors(t *testing.T) {
	server := kbstest.Start()
	defer server.Close()
	log := slog.New(slog.DiscardHandler)
	for name, raw := range map[string]bool{"raw off": false, "raw on": true} {
		agent := &Agent{Evidence: sampleTEE{}, Raw: raw, Log: log}
		socket := aa.NewTTRPCAttestationAgentServiceClient(dial(t, agent.Serve))
		doors := map[string]door{
			"ttrpc": func(ctx context.Context, data []byte) ([]byte, error) {
				out, err := socket.GetEvidence(ctx, &aa.GetEvidenceRequest{RuntimeData: data})
				return out.GetEvidence(), err
			},
			"REST": func(_ context.Context, data []byte) ([]byte, error) {
				code, body := rest(t, &REST{Agent: agent, Log: log}, "/aa/evidence?runtime_data="+url.QueryEscape(string(data)))
				if code != 200 {
					return nil, errors.New(body)
				}
				return []byte(body), nil
			},
		}
		for at, d := range doors {
			thief, err := kbs.New(kbs.Config{URL: server.URL, AllowPlainHTTP: true, Attester: d})
			if err != nil {
				t.Fatal(err)
			}
			_, err = thief.Token(t.Context())
			thief.Close()
			if (err == nil) != raw || (err != nil && !errors.Is(err, kbs.ErrDenied)) {
				t.Errorf("%s, %s: handshake in the guest's name: %v", name, at, err)
			}
		}
		for _, data := range [][]byte{nil, make([]byte, 65)} {
			if _, err := socket.GetEvidence(t.Context(), &aa.GetEvidenceRequest{RuntimeData: data}); (err != nil) != raw {
				t.Errorf("%s: %d bytes: got %v", name, len(data), err)
			}
		}
	}
}

// pair is a Tokens that earns the same token each time.
type pair struct{ err error }

func (p pair) Token(context.Context) (token, key []byte, err error) {
	if p.err != nil {
		return []byte(canary), []byte(canary), p.err
	}
	return []byte("a.b.c"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte(canary)}), nil
}

// jwt is an attestation service.
type jwt struct{ err error }

func (j jwt) Token(context.Context) ([]byte, error) { return []byte("a.b.c"), j.err }

func TestGetTokenSwitches(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	off, on := &Agent{Evidence: sampleTEE{}, Log: log}, &Agent{Evidence: sampleTEE{}, Tokens: pair{}, Log: log}
	service, refused := &Agent{Evidence: sampleTEE{}, Attested: jwt{}, Log: log}, &Agent{Evidence: sampleTEE{}, Attested: jwt{errors.New(canary)}, Log: log}
	if out, err := service.GetToken(t.Context(), &aa.GetTokenRequest{TokenType: "coco_as"}); err != nil || string(out.Token) != "a.b.c" {
		t.Errorf("a token of the attestation service: %v, %v", out, err)
	}
	failing := &Agent{Evidence: sampleTEE{}, Tokens: pair{errors.New(canary)}, Log: log}
	for name, c := range map[string]struct {
		agent      *Agent
		kind, want string // want "" is a token
	}{
		"off":                  {off, "kbs", "get token failed: not enabled"},
		"on":                   {on, "kbs", ""},
		"unbound token":        {on, "coco_as", "get token failed: not enabled"},
		"refused by service":   {refused, "coco_as", "get token failed"},
		"only unbound tokens":  {service, "kbs", "get token failed: not enabled"},
		"no type":              {on, "", "get token failed: token type is not served"},
		"another spelling":     {on, "KBS", "get token failed: token type is not served"},
		"denied by the broker": {failing, "kbs", "get token failed"},
	} {
		client := aa.NewTTRPCAttestationAgentServiceClient(dial(t, c.agent.Serve))
		out, err := client.GetToken(t.Context(), &aa.GetTokenRequest{TokenType: c.kind})
		if c.want != "" {
			if err == nil || !strings.HasSuffix(err.Error(), "[AA] [ERROR]: "+c.want) || strings.Contains(err.Error(), canary) {
				t.Errorf("%s: got %v, want %q", name, err, c.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		checkToken(t, name, out.Token)
	}
	// Containers reach REST: it has a switch of its own.
	for name, c := range map[string]struct {
		rest *REST
		code int
		want string
	}{
		"agent off":              {&REST{Agent: off, Token: true, Log: log}, 500, "get token failed: not enabled"},
		"agent on, REST off":     {&REST{Agent: on, Log: log}, 500, "get token failed: not enabled"},
		"both on":                {&REST{Agent: on, Token: true, Log: log}, 200, ""},
		"both on, a denied call": {&REST{Agent: failing, Token: true, Log: log}, 500, "get token failed"},
	} {
		code, body := rest(t, c.rest, "/aa/token?token_type=kbs")
		if code != c.code || c.want != "" && body != c.want {
			t.Errorf("%s: got %d %q, want %d %q", name, code, body, c.code, c.want)
		}
		if c.want == "" {
			checkToken(t, name, []byte(body))
		}
	}
}

// checkToken reads an answer as confidential-data-hub does.
func checkToken(t *testing.T, name string, raw []byte) {
	t.Helper()
	var out struct {
		Token   string `json:"token"`
		KeyPair string `json:"tee_keypair"`
	}
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("%s: bytes behind the answer", name)
	}
	block, _ := pem.Decode([]byte(out.KeyPair))
	if out.Token != "a.b.c" || block == nil || string(block.Bytes) != canary {
		t.Errorf("%s: got %q", name, raw)
	}
}

// events records texts, in a register or not.
type events struct {
	bound bool
	err   error
	texts []string
}

func (e *events) MeasureFor(domain, operation, content string) (bool, error) {
	e.texts = append(e.texts, domain+" "+operation+" "+content)
	return e.bound, e.err
}

func TestExtendRuntimeMeasurement(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	pcr := func(n uint64) *uint64 { return &n }
	for name, c := range map[string]struct {
		events   *events
		register *uint64
		result   aa.RuntimeMeasurementResult
		rest     string
		recorded bool
	}{
		"bound":               {&events{bound: true}, nil, aa.RuntimeMeasurementResult_OK, `{"success":"true"}`, true},
		"bound, PCR 17":       {&events{bound: true}, pcr(17), aa.RuntimeMeasurementResult_OK, `{"success":"true"}`, true},
		"unbound":             {&events{}, nil, aa.RuntimeMeasurementResult_NOT_SUPPORTED, `{"success":"false","message":"runtime measurement is not supported"}`, true},
		"full":                {&events{err: errors.New(canary)}, nil, -1, "extend runtime measurement failed", true},
		"the kernel's PCR":    {&events{bound: true}, pcr(8), -1, "", false},
		"the firmware's PCR":  {&events{bound: true}, pcr(1), -1, "", false},
		"no log is kept here": {nil, nil, aa.RuntimeMeasurementResult_NOT_ENABLED, `{"success":"false","message":"runtime measurement is not enabled"}`, false},
	} {
		agent := &Agent{Evidence: sampleTEE{}, Log: log}
		if c.events != nil {
			agent.Events = c.events
		}
		client := aa.NewTTRPCAttestationAgentServiceClient(dial(t, agent.Serve))
		out, err := client.ExtendRuntimeMeasurement(t.Context(), &aa.ExtendRuntimeMeasurementRequest{Domain: "example.com", Operation: "op", Content: "a b", RegisterIndex: c.register})
		if (err != nil) != (c.result < 0) || err == nil && out.Result != c.result || err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("%s: got %v, %v", name, out, err)
		}
		if c.events != nil && (len(c.events.texts) == 1) != c.recorded {
			t.Errorf("%s: recorded %q", name, c.events.texts)
		}
		if c.register != nil {
			continue // REST has no register
		}
		r := httptest.NewRequest("POST", "/aa/aael", strings.NewReader(`{"domain":"example.com","operation":"op","content":"a b"}`))
		r.RemoteAddr = "127.0.0.1:5"
		w := httptest.NewRecorder()
		(&REST{Agent: agent, Log: log}).ServeHTTP(w, r)
		if w.Body.String() != c.rest {
			t.Errorf("%s: got %q, want %q", name, w.Body.String(), c.rest)
		}
		if c.events != nil && c.events.texts[len(c.events.texts)-1] != "example.com op a b" {
			t.Errorf("%s: recorded %q", name, c.events.texts)
		}
	}
	// Rule 13: nobody writes the guest's own entries, through either door.
	mine := &events{bound: true}
	agent := &Agent{Evidence: sampleTEE{}, Events: mine, Log: log}
	client := aa.NewTTRPCAttestationAgentServiceClient(dial(t, agent.Serve))
	for _, domain := range []string{"github.com/confidential-containers", "casemate", "GITHUB.com/confidential-containers", "casemate.x"} {
		if out, err := client.ExtendRuntimeMeasurement(t.Context(), &aa.ExtendRuntimeMeasurementRequest{Domain: domain, Operation: "PullImage", Content: "{}"}); err == nil {
			t.Errorf("%s: %v", domain, out)
		}
		r := httptest.NewRequest("POST", "/aa/aael", strings.NewReader(`{"domain":"`+domain+`","operation":"PullImage","content":"{}"}`))
		r.RemoteAddr = "127.0.0.1:5"
		w := httptest.NewRecorder()
		(&REST{Agent: agent, Log: log}).ServeHTTP(w, r)
		if w.Code != 500 {
			t.Errorf("%s: %d %s", domain, w.Code, w.Body)
		}
	}
	if len(mine.texts) > 0 {
		t.Errorf("recorded %q", mine.texts)
	}
}
