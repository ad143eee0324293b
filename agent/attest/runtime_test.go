// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"crypto"
	"errors"
	"slices"
	"testing"

	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/evidence"
)

// rtmr3 is a register in memory.
type rtmr3 struct{ value []byte }

func (*rtmr3) Number() uint32           { return 4 }
func (*rtmr3) Hash() crypto.Hash        { return crypto.SHA384 }
func (r *rtmr3) Value() ([]byte, error) { return bytes.Clone(r.value), nil }
func (r *rtmr3) Extend(d []byte) error {
	h := crypto.SHA384.New()
	h.Write(r.value)
	h.Write(d)
	r.value = h.Sum(nil)
	return nil
}

// watched is a log that tells whether it is held.
type watched struct {
	*eventlog.Log
	held bool
}

func (w *watched) Hold(f func([]byte) error) error {
	return w.Log.Hold(func(entries []byte) error {
		w.held = true
		defer func() { w.held = false }()
		return f(entries)
	})
}

// What the guest measured since it booted is in the evidence, replays to the register,
// and nothing is added between the quote and the log.
func TestTDXEvidenceCarriesRuntimeEntries(t *testing.T) {
	firmware := join(headEvent(append([]byte("Spec ID Event03\x00"), make([]byte, 21)...)), event(0x0C, make([]byte, 48), []byte("kernel")))
	for name, c := range map[string]struct{ area, head []byte }{
		"with a firmware log": {join(firmware, make([]byte, 512)), firmware},
		"without one":         {nil, emptyLogHead()},
	} {
		register := &rtmr3{make([]byte, 48)}
		events, err := eventlog.Open(t.TempDir(), register)
		if err != nil {
			t.Fatal(err)
		}
		log := &watched{Log: events}
		kernel := tdxKernel(slices.Clone)
		quote := kernel.outblob
		kernel.outblob = func(in []byte) ([]byte, error) {
			if !log.held {
				t.Errorf("%s: the quote is taken while the log may change", name)
			}
			return quote(in)
		}
		client := kernel.client()
		a, err := Detect(Config{TSM: client, EventLog: writeLog(t, c.area), Runtime: log})
		if err != nil {
			t.Fatal(err)
		}
		take := func() []byte {
			text, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil))
			if err != nil {
				t.Fatal(err)
			}
			e, err := evidence.ParseTDXEvidence(text)
			if err != nil {
				t.Fatal(err)
			}
			return e.EventLog
		}
		before := take()
		if c.area == nil && before != nil || c.area != nil && !bytes.Equal(before, join(firmware, logEndMark)) {
			t.Errorf("%s: before anything happened the log is %x", name, before)
		}
		if err := events.Measure(eventlog.DomainImages, "PullImage", "{}"); err != nil {
			t.Fatal(err)
		}
		after := take()
		if !bytes.HasPrefix(after, c.head) || !bytes.HasSuffix(after, logEndMark) {
			t.Errorf("%s: the log is %x", name, after)
		}
		registers, err := evidence.ReplayEventLog(after)
		if err != nil || !bytes.Equal(registers[3][:], register.value) {
			t.Errorf("%s: RTMR3 replays to %x, %v, want %x", name, registers[3], err, register.value)
		}
	}
}

type brokenLog struct{}

func (brokenLog) Hold(func([]byte) error) error { return errors.New("the log is gone") }

func TestNoEvidenceWithoutTheRuntimeLog(t *testing.T) {
	a, err := Detect(Config{TSM: tdxKernel(slices.Clone).client(), EventLog: writeLog(t, nil), Runtime: brokenLog{}})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil {
		t.Errorf("evidence with a partial log: %s", out)
	}
}

func TestEmptyLogHead(t *testing.T) {
	if head := emptyLogHead(); len(head) != 69 {
		t.Errorf("%d bytes, want guest-components' 69", len(head))
	}
	if size, err := eventsSize(emptyLogHead()); err != nil || size != 69 {
		t.Errorf("got %d, %v", size, err)
	}
	if _, err := readEventLog(writeLog(t, nil), make([]byte, evidence.MaxEventLogSize)); err == nil {
		t.Error("a log over the cap")
	}
}
