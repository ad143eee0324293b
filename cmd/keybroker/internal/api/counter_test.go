// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// counter asks for a counter, and for a change of it if there is one.
func (g *guest) counter(volume string, change *evidence.CounterChange) answer {
	g.b.t.Helper()
	method, body := "GET", []byte(nil)
	if change != nil {
		method, body = "POST", change.Encode()
	}
	return g.b.do(g.b.t.Context(), method, "/kbs/v0/counter/"+volume, body, map[string]string{"Cookie": "kbs-session-id=" + g.cookie})
}

func (g *guest) wantCounter(a answer, want evidence.Counter) {
	g.b.t.Helper()
	if a.status != 200 {
		g.b.t.Fatalf("answer %d %s", a.status, a.body)
	}
	plain, err := g.open(a)
	must(g.b.t, err)
	if got, err := evidence.ParseCounter([]byte(plain)); err != nil || got != want {
		g.b.t.Fatalf("counter %s: %v, want %+v", plain, err, want)
	}
}

func generation(number uint64, id byte) evidence.Generation {
	return evidence.Generation{Number: number, ID: [evidence.GenerationIDSize]byte{id}}
}

// A workload's guests raise its counters; the audit log has each raise, and each that was refused.
func TestCounter(t *testing.T) {
	b := newBroker(t)
	docA, docB := document(t, "a", ""), document(t, "b", "")
	b.register("a", docA, nil)
	b.register("b", docB, nil)
	g, other := b.guest(docA).handshake(), b.guest(docB).handshake()
	wantRefused(t, g.counter("data", nil), 404, "ResourceNotFound")
	b.wantLast(audit.Count, "counter")
	one, two := generation(1, 1), generation(2, 1)
	g.wantCounter(g.counter("data", &evidence.CounterChange{To: one}), evidence.Counter{Generation: one})
	g.wantCounter(g.counter("data", &evidence.CounterChange{From: one, To: two}), evidence.Counter{Generation: two})
	if r := b.wantLast(audit.Count, ""); r.Note != "raised from 1 to 2" || r.Workload != "a" || r.Resource != "counter/data" {
		t.Errorf("record %+v", r)
	}
	// Another copy of generation 1 was opened by somebody else.
	g.wantCounter(g.counter("data", &evidence.CounterChange{From: one, To: generation(2, 9)}), evidence.Counter{Generation: two})
	b.wantLast(audit.Count, "generation")
	g.wantCounter(g.counter("data", nil), evidence.Counter{Generation: two})
	// Another workload's volume of the same name is another.
	wantRefused(t, other.counter("data", nil), 404, "ResourceNotFound")
	other.wantCounter(other.counter("data", &evidence.CounterChange{From: two, To: generation(3, 3)}), evidence.Counter{})
	wantRefused(t, other.counter("data", nil), 404, "ResourceNotFound")
}

// What a secret is not given to raises no counter either.
func TestCounterRefused(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "a", "")
	b.register("a", doc, nil)
	g := b.guest(doc).handshake()
	one := generation(1, 1)
	change := &evidence.CounterChange{To: one}
	wantRefused(t, b.guest(doc).counter("data", change), 401, "TokenNotFound")
	for _, volume := range []string{"Data", "-f", "a%2Fb", "..", "a/b", "a%00"} {
		if a := g.counter(volume, change); a.status != 404 {
			t.Errorf("volume %q: %d %s", volume, a.status, a.body)
		}
	}
	for _, body := range []string{"", "{}", `{"from":1,"to":2}`, string(evidence.CounterChange{From: one, To: one}.Encode())} {
		a := b.do(t.Context(), "POST", "/kbs/v0/counter/data", []byte(body), map[string]string{"Cookie": "kbs-session-id=" + g.cookie})
		wantRefused(t, a, 400, "InvalidRequest")
	}
	b.register("a", doc, func(r *owner.Registration) { r.Policy = "package policy\nallow if data.plugin == \"resource\"" })
	wantRefused(t, g.counter("data", change), 403, "PolicyDeny")
	b.wantLast(audit.Count, "policy")
	b.register("a", doc, func(r *owner.Registration) {
		r.Policy = "package policy\nallow if { data.plugin == \"counter\"; data[\"resource-path\"] == [\"data\"] }"
	})
	wantRefused(t, g.counter("more", change), 403, "PolicyDeny")
	g.wantCounter(g.counter("data", change), evidence.Counter{Generation: one})
	must(t, b.owner.Unregister(t.Context(), "a"))
	wantRefused(t, g.counter("data", nil), 403, "PolicyDeny")
}

// Of guests that open at once one raises the counter.
func TestCounterRace(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "a", "")
	b.register("a", doc, nil)
	guests := make([]*guest, 4)
	for i := range guests {
		guests[i] = b.guest(doc).handshake()
	}
	won := make([]int, len(guests))
	parallel(len(guests), func(i int) {
		to := generation(1, byte(i)+1)
		a := guests[i].counter("data", &evidence.CounterChange{To: to})
		if plain, err := guests[i].open(a); err == nil && plain == string(evidence.Counter{Generation: to}.Encode()) {
			won[i] = 1
		}
	})
	if n := count(won, 1); n != 1 {
		t.Errorf("%d guests have raised the counter", n)
	}
}

// The owner sees the counters and lets one begin anew.
func TestCounterOwner(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "a", "")
	b.register("a", doc, nil)
	g := b.guest(doc).handshake()
	for i := range 2 {
		g.counter(fmt.Sprintf("v%d", i), &evidence.CounterChange{To: generation(uint64(i)+5, 1)})
	}
	must(t, b.owner.ResetCounter(t.Context(), "a", "v1"))
	list, err := b.owner.Counters(t.Context(), "a")
	if err != nil || len(list) != 2 || list[0] != (owner.Counter{Volume: "v0", Generation: 5}) || list[1] != (owner.Counter{Volume: "v1", Generation: 6, Reset: true}) {
		t.Errorf("%+v, %v", list, err)
	}
	if r := b.wantLast(audit.Owner, ""); r.Resource != "counter/v1" {
		t.Errorf("record %+v", r)
	}
	g.wantCounter(g.counter("v1", nil), evidence.Counter{Generation: generation(6, 1), Reset: true})
	g.wantCounter(g.counter("v1", &evidence.CounterChange{From: generation(6, 1), To: generation(9, 2)}), evidence.Counter{Generation: generation(9, 2)})
	if err := b.owner.ResetCounter(t.Context(), "a", "../x"); err == nil {
		t.Error("a volume with a path was reset")
	}
	for _, path := range []string{"workloads/a/counters", "workloads/a/counters/v0/reset"} {
		for _, method := range []string{"GET", "POST"} {
			if a := b.do(t.Context(), method, "/owner/v1/"+path, nil, nil); a.status != 401 {
				t.Errorf("%s %s without the owner's token: %d", method, path, a.status)
			}
		}
	}
}
