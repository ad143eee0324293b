// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// send posts a report under g's cookie.
func (g *guest) report(body string) answer {
	return g.b.do(g.b.t.Context(), http.MethodPost, "/kbs/v0/report", []byte(body), map[string]string{"Cookie": "kbs-session-id=" + g.cookie})
}

// A guest tells of itself once for a handshake, also when it was refused, and nobody
// without a handshake tells anything.
func TestGuestReports(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc)
	if a := g.report(`{}`); a.status != 401 {
		t.Errorf("without a session: %d %s", a.status, a.body)
	}
	g.auth()
	if a := g.report(`{}`); a.status != 401 {
		t.Errorf("before any evidence: %d %s", a.status, a.body)
	}
	g.params.Measurement = strings.Repeat("cd", 48)
	wantRefused(t, g.attest(), 401, "AttestationError")
	id := b.wantLast(audit.Attest, "measurement").ID
	if a := g.report(`{"timeline": [1, "pull"]}`); a.status != 200 {
		t.Fatalf("after a denial: %d %s", a.status, a.body)
	}
	if last := b.wantLast(audit.Report, ""); last.ID != id {
		t.Errorf("reported under %s, attested under %s", last.ID, id)
	}
	if text, err := audit.ReadReport(b.dir, id); err != nil || string(text) != `{"timeline":[1,"pull"]}` {
		t.Errorf("kept %q, %v", text, err)
	}
	if a := g.report(`{"second":true}`); a.status != 401 {
		t.Errorf("a second one: %d %s", a.status, a.body)
	}
	for name, body := range map[string]string{
		"not JSON": "x", "an array": "[]", "cut": `{"a":`, "two values": "{} {}", "a repeated member": `{"a":1,"a":2}`, "nothing": "",
		"too large": `{"a":"` + strings.Repeat("x", evidence.MaxGuestReport) + `"}`,
	} {
		g := b.guest(doc)
		g.handshake()
		if a := g.report(body); a.status < 400 || a.status >= 500 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if a := g.report(`{}`); a.status != 401 {
			t.Errorf("%s: and again: %d", name, a.status)
		}
	}
	g = b.guest(doc)
	g.handshake()
	b.later(time.Hour)
	if a := g.report(`{}`); a.status != 401 {
		t.Errorf("of an expired session: %d %s", a.status, a.body)
	}
	files, err := os.ReadDir(filepath.Join(b.dir, "reports-refused"))
	if err != nil || len(files) != 1 {
		t.Errorf("kept %v, %v", files, err)
	}
}

// Anybody can open sessions, send nonsense for evidence and report. It takes nobody's place who was accepted.
func TestRefusedPeersDoNotPushOutReports(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	if a := g.report(`{"of":"a guest"}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	list := b.records()
	id := list[len(list)-1].ID
	for range 300 {
		stranger := b.guest(nil)
		stranger.auth()
		stranger.post([]byte("{}"))
		if a := stranger.report(`{}`); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if text, err := audit.ReadReport(b.dir, id); err != nil || string(text) != `{"of":"a guest"}` {
		t.Errorf("kept %q, %v", text, err)
	}
}

// chipAttester is the test chip under the guest's own client.
type chipAttester struct{ *snptest.Signer }

func (chipAttester) TEE() evidence.TEE { return evidence.SNP }

func (a chipAttester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	e, err := a.Signer.Evidence(r.Bytes64())
	if err != nil {
		return nil, err
	}
	return e.Encode()
}

// Through the guest's own client: a denial and a success are both told of.
func TestGuestClientReports(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	m, err := chip()
	must(t, err)
	signer := *m
	signer.Params.HostData = b.guest(doc).params.HostData
	for measurement, denied := range map[string]bool{"ab": false, "cd": true} {
		signer.Params.Measurement = strings.Repeat(measurement, 48)
		client, err := kbs.New(kbs.Config{URL: b.url, AllowPlainHTTP: true, Attester: chipAttester{&signer}, InitData: doc,
			Report: func(t kbs.Transcript) []byte { return []byte(`{"of":"` + measurement + `"}`) }})
		must(t, err)
		if _, err := client.Token(t.Context()); (err != nil) != denied {
			t.Errorf("measurement %s: %v", measurement, err)
		}
		// After a success it is sent beside what the guest does next.
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			list := b.records()
			last := list[len(list)-1]
			if last.Event == audit.Report {
				if text, err := audit.ReadReport(b.dir, last.ID); err != nil || string(text) != `{"of":"`+measurement+`"}` {
					t.Errorf("kept %s, %v", text, err)
				}
				break
			}
			if time.Now().After(end) {
				t.Fatalf("measurement %s: no report", measurement)
			}
		}
		client.Close()
	}
}
