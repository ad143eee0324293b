// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// tell posts incidents with a header.
func (b *broker) tell(body string, header map[string]string) answer {
	return b.do(b.t.Context(), http.MethodPost, "/kbs/v0/incidents", []byte(body), header)
}

func (g *guest) cookies() map[string]string {
	return map[string]string{"Cookie": "kbs-session-id=" + g.cookie}
}

func bearer(text string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + text}
}

// oneIncident is a message with an incident.
func oneIncident(seq int, text string) string {
	return fmt.Sprintf(`{"incidents":[{"seq":%d,"ago_us":5,"stage":"policy","request":"ExecProcessRequest","error":%q}]}`, seq, text)
}

// ticketOf reads the answer to incidents.
func ticketOf(t *testing.T, a answer) string {
	t.Helper()
	if a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ticket, err := evidence.ParseTicket([]byte(a.body))
	must(t, err)
	return ticket.Ticket
}

// kept reads what is kept of the last handshake.
func (b *broker) kept(id string) []audit.KeptIncident {
	b.t.Helper()
	list, err := audit.ReadIncidents(b.dir, id)
	must(b.t, err)
	return list
}

// An attested guest tells in its session, and with its ticket long after that; both go under its handshake's id.
func TestIncidents(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	id := b.wantLast(audit.Attest, "").ID
	ticket := ticketOf(t, b.tell(`{"incidents":[]}`, g.cookies()))
	if list := b.kept(id); len(list) != 0 {
		t.Fatalf("kept %v of nothing", list)
	}
	ticketOf(t, b.tell(oneIncident(1, "first"), g.cookies()))
	if last := b.wantLast(audit.Incident, ""); last.ID != id || last.Workload != "web" || last.Note != "1 of policy" {
		t.Errorf("recorded %+v", last)
	}
	b.later(48 * time.Hour)
	if a := b.tell(oneIncident(2, "x"), g.cookies()); a.status != 401 {
		t.Errorf("with the session that is over: %d %s", a.status, a.body)
	}
	if again := ticketOf(t, b.tell(oneIncident(2, "second"), bearer(ticket))); again != ticket {
		t.Errorf("another ticket: %s, %s", again, ticket)
	}
	list := b.kept(id)
	if len(list) != 2 || list[0].Incident.Error != "first" || list[1].Incident.Error != "second" || list[1].Workload != "web" || list[1].Received.IsZero() {
		t.Errorf("kept %+v", list)
	}
	// The key of tickets is the state's: another process has the same.
	key, err := ticketKey(b.server.store)
	must(t, err)
	if string(key) != string(b.server.ticketKey) {
		t.Error("a restart makes all tickets void")
	}
	// A ticket opens nothing else.
	b.put("web", "a/b/c", "secret")
	if a := b.getBearer("a/b/c", ticket); a.status != 401 || strings.Contains(a.body, "secret") {
		t.Errorf("a ticket released a secret: %d %s", a.status, a.body)
	}
	must(t, b.owner.Unregister(t.Context(), "web"))
	if a := b.tell(oneIncident(3, "x"), bearer(ticket)); a.status != 403 {
		t.Errorf("of a workload that is gone: %d %s", a.status, a.body)
	}
}

// Who has no attested session and no ticket, or another's, tells nothing.
func TestIncidentsOfStrangers(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	id := b.wantLast(audit.Attest, "").ID
	ticket := ticketOf(t, b.tell(`{"incidents":[]}`, g.cookies()))
	begun := b.guest(doc)
	begun.auth()
	denied := b.guest(doc)
	denied.params.Measurement = strings.Repeat("cd", 48)
	denied.auth()
	denied.attest()
	mac := ticket[strings.LastIndex(ticket, ":")+1:]
	for name, header := range map[string]map[string]string{
		"nobody":                      nil,
		"no such session":             {"Cookie": "kbs-session-id=" + strings.Repeat("0", 32)},
		"before any evidence":         begun.cookies(),
		"refused evidence":            denied.cookies(),
		"a token of nobody":           bearer("x.y.z"),
		"an empty ticket":             bearer(ticketPrefix),
		"another guest's id":          bearer(ticketPrefix + strings.Repeat("0", 16) + ":web:" + mac),
		"another workload":            bearer(ticketPrefix + id + ":other:" + mac),
		"a path for a workload":       bearer(ticketPrefix + id + ":../web:" + mac),
		"a path for an id":            bearer(ticketPrefix + "../" + id + ":web:" + mac),
		"a MAC cut short":             bearer(ticket[:len(ticket)-2]),
		"a changed MAC":               bearer(ticket[:len(ticket)-2] + "AA"),
		"no MAC":                      bearer(ticketPrefix + id + ":web:"),
		"a ticket where a cookie is":  {"Cookie": "kbs-session-id=" + ticket},
		"a cookie where a ticket is":  bearer(ticketPrefix + g.cookie),
		"a ticket of another keyword": {"Authorization": "Basic " + ticket},
	} {
		if a := b.tell(oneIncident(1, name), header); a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if list := b.kept(id); len(list) != 0 {
		t.Errorf("kept %+v", list)
	}
	if a := b.do(t.Context(), http.MethodGet, "/kbs/v0/incidents", nil, bearer(ticket)); a.status != 404 {
		t.Errorf("read by a guest: %d %s", a.status, a.body)
	}
}

// What is no list of incidents, or too much of one, is refused and not kept.
func TestMalformedIncidents(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	id := b.wantLast(audit.Attest, "").ID
	for name, tt := range map[string]struct {
		body   string
		status int
	}{
		"nothing":          {"", 400},
		"not JSON":         {"x", 400},
		"an array":         {"[]", 400},
		"unknown member":   {`{"incidents":[],"more":1}`, 400},
		"repeated member":  {`{"incidents":[],"incidents":[]}`, 400},
		"one too large":    {oneIncident(1, strings.Repeat("x", evidence.MaxIncident)), 400},
		"too many":         {`{"incidents":[` + strings.Repeat(`{"seq":1,"ago_us":0,"stage":"s","error":""},`, 8) + `{"seq":1,"ago_us":0,"stage":"s","error":""}]}`, 400},
		"a body too large": {oneIncident(1, strings.Repeat("x", evidence.MaxIncidentsSize)), 413},
		"deep":             {`{"incidents":` + strings.Repeat("[", 50000) + `}`, 400},
	} {
		if a := b.tell(tt.body, g.cookies()); a.status != tt.status {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if list := b.kept(id); len(list) != 0 {
		t.Errorf("kept %+v", list)
	}
}

// A guest that tells without end is slowed down, and what is kept of it has an end, with the first and the newest in it.
func TestIncidentFlood(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	id := b.wantLast(audit.Attest, "").ID
	ticket := ticketOf(t, b.tell(oneIncident(1, "the first"), g.cookies()))
	taken := 0
	for range 200 {
		a := b.tell(oneIncident(2, "x"), bearer(ticket))
		if a.status == http.StatusOK {
			taken++
		} else if a.status != http.StatusTooManyRequests {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if taken >= tellBurst {
		t.Errorf("%d messages at once, want at most %d", taken, tellBurst)
	}
	full := make([]string, evidence.MaxIncidents)
	for n := range full {
		full[n] = fmt.Sprintf(`{"seq":3,"ago_us":0,"stage":"flood","error":%q}`, strings.Repeat("x", 16000))
	}
	for range 100 {
		b.later(5 * time.Second)
		if a := b.tell(`{"incidents":[`+strings.Join(full, ",")+`]}`, bearer(ticket)); a.status != http.StatusOK {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	b.later(5 * time.Second)
	ticketOf(t, b.tell(oneIncident(4, "the last"), bearer(ticket)))
	list := b.kept(id)
	if list[0].Incident.Error != "the first" || list[len(list)-1].Incident.Error != "the last" {
		t.Errorf("first %.20q, last %.20q", list[0].Incident.Error, list[len(list)-1].Incident.Error)
	}
	if size := treeSize(t, filepath.Join(b.dir, "incidents")); size > 3*(64<<10+evidence.MaxIncidentsSize) {
		t.Errorf("%d bytes are kept of one guest", size)
	}
	// Its allowance is forgotten once it is full again.
	b.later(time.Hour)
	b.server.sweep()
	if n := len(b.server.telling.byID); n != 0 {
		t.Errorf("%d guests are remembered", n)
	}
}

func treeSize(t *testing.T, dir string) (size int64) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		size += info.Size()
		return err
	}))
	return size
}
