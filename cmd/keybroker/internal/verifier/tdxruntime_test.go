// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto"
	"testing"

	"github.com/casemate/casemate/agent/eventlog"
)

// rtmr3 is the register of a TDX guest, in the body of its quotes.
type rtmr3 struct{ in []byte }

func (rtmr3) Number() uint32           { return 4 }
func (rtmr3) Hash() crypto.Hash        { return crypto.SHA384 }
func (r rtmr3) Value() ([]byte, error) { return bytes.Clone(r.in), nil }
func (r rtmr3) Extend(digest []byte) error {
	h := crypto.SHA384.New()
	h.Write(r.in)
	h.Write(digest)
	copy(r.in, h.Sum(nil))
	return nil
}

// What a guest recorded since it booted is judged with the firmware's log: with an entry
// left out, added or edited, the log is not the register's.
func TestTDXRuntimeEntries(t *testing.T) {
	w := newTDXWorld(t, 5)
	const atRTMR3 = 328 + 3*48
	events, err := eventlog.Open(t.TempDir(), rtmr3{w.body[atRTMR3:][:48]})
	if err != nil {
		t.Fatal(err)
	}
	if err := events.Measure(eventlog.DomainImages, "PullImage", `{"image":"a", "digest":"b"}`); err != nil {
		t.Fatal(err)
	}
	if _, err := events.MeasureFor("example.com", "op", "x"); err != nil {
		t.Fatal(err)
	}
	var entries []byte
	if err := events.Hold(func(e []byte) error { entries = bytes.Clone(e); return nil }); err != nil {
		t.Fatal(err)
	}
	first := bytes.Index(entries[1:], entries[:12]) + 1 // the second entry starts as the first does
	edited := bytes.Replace(entries, []byte(`"digest":"b"`), []byte(`"digest":"c"`), 1)
	for name, c := range map[string]struct {
		entries []byte
		allowed bool
	}{
		"as recorded":    {entries, true},
		"none":           {nil, false},
		"one left out":   {entries[first:], false},
		"one twice":      {append(bytes.Clone(entries), entries[first:]...), false},
		"in other order": {append(bytes.Clone(entries[first:]), entries[:first]...), false},
	} {
		w.log = append(emptyLog(), c.entries...)
		if v := w.verify(t); c.allowed {
			wantAllowed(t, v)
		} else if v.Allowed() {
			t.Errorf("%s: allowed", name)
		} else {
			wantDenied(t, v, "event-log")
		}
	}
	// The register holds the digest, not the text: who reads texts must hash them.
	w.log = append(emptyLog(), edited...)
	if v := w.verify(t); !v.Allowed() {
		t.Errorf("replay looks at texts: %v; then LIMITATIONS is out of date", v.Failed())
	}
}
