// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"errors"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

func TestCounter(t *testing.T) {
	server := kbstest.StartTLS()
	defer server.Close()
	c, err := New(Config{URL: server.URL, Roots: server.Roots, Attester: &sampleAttester{}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Counter(t.Context(), "v"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no counter: %v", err)
	}
	one, two := evidence.Generation{Number: 1, ID: [16]byte{1}}, evidence.Generation{Number: 2, ID: [16]byte{2}}
	server.Put("counter/v", evidence.Counter{Generation: one, Reset: true}.Encode())
	if got, err := c.Counter(t.Context(), "v"); err != nil || got != (evidence.Counter{Generation: one, Reset: true}) {
		t.Errorf("%+v, %v", got, err)
	}
	// The second is an answer that got lost, the third comes too late.
	for _, to := range []evidence.Generation{two, two, {Number: 2, ID: [16]byte{3}}} {
		if got, err := c.RaiseCounter(t.Context(), "v", evidence.CounterChange{From: one, To: to}); err != nil || got.Generation != two {
			t.Errorf("to %+v: %+v, %v", to, got, err)
		}
	}
	server.Forget() // the session, as a restarted broker does
	if got, err := c.Counter(t.Context(), "v"); err != nil || got.Generation != two {
		t.Errorf("after a new handshake: %+v, %v", got, err)
	}
	server.Put("counter/v", []byte(`{"generation":{}}`))
	if _, err := c.Counter(t.Context(), "v"); !errors.Is(err, ErrProtocol) {
		t.Errorf("an answer that is none: %v", err)
	}
}

// Whoever is on the way of plain HTTP can encrypt any answer to the TEE key, so none is asked for.
func TestCounterOverPlainHTTP(t *testing.T) {
	server, c := newPair(t, nil)
	server.Put("counter/v", evidence.Counter{}.Encode())
	if _, err := c.Counter(t.Context(), "v"); err == nil || !strings.Contains(err.Error(), "plain HTTP") {
		t.Error(err)
	}
	if n := server.Count(""); n != 0 {
		t.Errorf("%d requests", n)
	}
}
