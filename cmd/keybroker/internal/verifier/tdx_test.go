// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// emptyLog has no event that measures: it replays to registers of zeros.
func emptyLog() []byte {
	log := make([]byte, 48)
	log[4], log[28] = 3, 16
	copy(log[32:], "Spec ID Event03\x00")
	return log
}

func TestTDXEventLog(t *testing.T) {
	w := newTDXWorld(t, 4)
	w.log = emptyLog()
	wantAllowed(t, w.verify(t, nil))
	w.body[328+48] = 1 // RTMR1
	wantDenied(t, w.verify(t, nil), "event-log")
	w.log = nil
	v := w.verify(t, nil)
	wantAllowed(t, v)
	if !strings.Contains(string(v.Claims), `"event_log":false`) {
		t.Errorf("claims %s", v.Claims)
	}
}

func TestTDXAllowed(t *testing.T) {
	for _, version := range []uint16{4, 5} {
		v := newTDXWorld(t, version).verify(t, nil)
		wantAllowed(t, v)
		if v.Facts.TCBStatus != "UpToDate" || v.Facts.TCBDate != "2024-03-13" || !v.Facts.TestRoot || !strings.Contains(string(v.Claims), "INTEL-SA-00001") {
			t.Errorf("version %d: %+v %s", version, v.Facts, v.Claims)
		}
	}
}

// TestEachTDXRuleDeniesAlone has one row at least for each rule.
func TestEachTDXRuleDeniesAlone(t *testing.T) {
	seen := map[string]bool{}
	for _, tt := range []struct {
		name, rule string
		change     func(w *tdxWorld)
		after      func(w *tdxWorld)
	}{
		{"version 6", "format", func(w *tdxWorld) { w.edit = func(q []byte) { q[0] = 6 } }, nil},
		{"CA of another root", "chain", func(w *tdxWorld) {
			k := newKey(t)
			other := issue(t, "test root", true, k, nil, k)
			w.ca = issue(t, "test CA", true, w.caKey, other, k)
		}, nil},
		{"expired certificates", "validity", func(w *tdxWorld) {
			w.in.Now = time.Now().Add(150 * time.Minute)
			w.in.Registration.TDX.AcceptMissingCollateral = true
		}, nil},
		{"revoked PCK", "revocation", func(w *tdxWorld) { w.revoked = append(w.revoked, w.pck) }, nil},
		{"revoked CA", "revocation", func(w *tdxWorld) { w.revoked = append(w.revoked, w.ca) }, nil},
		{"revoked PCK without need of collateral", "revocation", func(w *tdxWorld) {
			w.revoked = append(w.revoked, w.pck)
			w.in.Registration.TDX.AcceptMissingCollateral = true
		}, nil},
		{"expired lists", "revocation", func(w *tdxWorld) { w.until = time.Now().Add(-time.Second) }, nil},
		{"no lists", "revocation", nil, func(w *tdxWorld) { os.RemoveAll(filepath.Join(w.dir, "crl")) }},
		{"QE report by another key", "qe-signature", func(w *tdxWorld) { w.pckKey = newKey(t) }, nil},
		{"attestation key of another", "attestation-key", func(w *tdxWorld) { w.ak = newKey(t) }, nil},
		{"body changed later", "signature", func(w *tdxWorld) { w.edit = func(q []byte) { q[28] ^= 1 } }, nil},
		{"revoked level", "tcb-info", func(w *tdxWorld) { w.tcbStatus = "Revoked"; w.in.Registration.TDX.AcceptTCB = []string{"Revoked"} }, nil},
		{"other enclave", "qe-identity", func(w *tdxWorld) { w.qe[256] = 3 }, nil},
		{"debug", "debug", func(w *tdxWorld) { w.body[120] |= 1 }, nil},
		{"reserved TUD bit", "debug", func(w *tdxWorld) { w.body[120] |= 0x80 }, nil},
		{"migratable", "migration", func(w *tdxWorld) { w.body[123] |= 0x20 }, nil},
		{"service TD", "migration", func(w *tdxWorld) { w.body[600] = 1 }, nil},
		{"SEPT_VE on", "sept-ve", func(w *tdxWorld) { w.body[123] = 0 }, nil},
		{"debug module", "module-signer", func(w *tdxWorld) { w.body[112] = 1 }, nil},
		{"report data of another", "report-data", func(w *tdxWorld) { w.body[520] ^= 1 }, nil},
		{"report data not padded with zeros", "report-data", func(w *tdxWorld) { w.body[583] = 1 }, nil},
		{"other initdata", "config-id", func(w *tdxWorld) { w.body[184] ^= 1 }, nil},
		{"event log of another", "event-log", func(w *tdxWorld) { w.log = []byte("not a log") }, nil},
		{"other measurement", "measurement", func(w *tdxWorld) { w.body[136] = 0 }, nil},
		{"other RTMR2", "rtmr", func(w *tdxWorld) { w.in.Registration.TDX.RTMR2 = []string{strings.Repeat("11", 48)} }, nil},
		{"out of date", "tcb-minimum", func(w *tdxWorld) { w.tcbStatus = "OutOfDate" }, nil},
		{"old level", "tcb-minimum", func(w *tdxWorld) { w.in.Registration.TDX.MinimumTCBDate = "2025-01-01" }, nil},
		{"test root not taken", "test-root", func(w *tdxWorld) { w.in.Registration.TestRoots = false }, nil},
		{"tdx not listed", "tee-listed", func(w *tdxWorld) { w.in.Registration.TEEs = []evidence.TEE{evidence.SNP} }, nil},
		{"initdata not listed", "initdata-listed", func(w *tdxWorld) { w.in.Registration.InitData = nil }, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newTDXWorld(t, 5)
			if tt.change != nil {
				tt.change(w)
			}
			wantDenied(t, w.verify(t, func() {
				if tt.after != nil {
					tt.after(w)
				}
			}), tt.rule)
		})
		seen[tt.rule] = true
	}
	for _, c := range tdxChecks() {
		if !seen[c.name] {
			t.Errorf("no row for %s", c.name)
		}
	}
	for _, c := range registrationChecks() {
		if !seen[c.name] && !slices.Contains([]string{"attestation-key-listed", "pcrs"}, c.name) { // TestEachTPMRuleDeniesAlone
			t.Errorf("no row for %s", c.name)
		}
	}
}

func TestTDXMissingCollateral(t *testing.T) {
	w := newTDXWorld(t, 4)
	remove := func() { os.RemoveAll(filepath.Join(w.dir, "tdx")) }
	wantDenied(t, w.verify(t, remove), "tcb-info", "qe-identity", "tcb-minimum")
	w.in.Registration.TDX.AcceptMissingCollateral = true
	v := w.verify(t, remove)
	wantAllowed(t, v)
	if v.Facts.TCBStatus != owner.TCBUnknown {
		t.Errorf("status %s", v.Facts.TCBStatus)
	}
}

// TestTDXRealQuote: the chain, keys and signatures of real hardware hold below Intel's
// root, and no byte of what they sign can change.
func TestTDXRealQuote(t *testing.T) {
	quote := bytes.TrimSuffix(testdata.RawQuote, []byte("\nextra bytes(only for testing purpose)\n"))
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	signed := func(quote []byte) bool {
		q, err := evidence.ParseTDXQuote(quote)
		if err != nil {
			return false
		}
		c := &tdxCase{quote: q, v: &v.tdx}
		_, _, chain := tdxChain(c)
		if !chain {
			return false
		}
		for _, judge := range []func(*tdxCase) (string, string, bool){tdxQESignature, tdxAttestationKey, tdxSignature} {
			if _, _, ok := judge(c); !ok {
				return false
			}
		}
		return !c.pck.test
	}
	if !signed(quote) {
		t.Fatal("a real quote is refused")
	}
	const toAuthData = 636 + 64 + 64 + 6 + 384 + 64 + 2 + 32
	for i := range toAuthData {
		q := bytes.Clone(quote)
		q[i] ^= 1
		if signed(q) {
			t.Errorf("byte %d changed and not noticed", i)
		}
	}
}
