// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"os"
	"path/filepath"
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
	wantAllowed(t, w.verify(t))
	w.body[328+48] = 1 // RTMR1
	wantDenied(t, w.verify(t), "event-log")
	w.log = nil
	v := w.verify(t)
	wantAllowed(t, v)
	if !strings.Contains(string(v.Claims), `"event_log":false`) {
		t.Errorf("claims %s", v.Claims)
	}
}

func TestTDXAllowed(t *testing.T) {
	for _, version := range []uint16{4, 5} {
		v := newTDXWorld(t, version).verify(t)
		wantAllowed(t, v)
		if v.Facts.TCBStatus != "UpToDate" || v.Facts.TCBDate != "2024-03-13" || !v.Facts.TestRoot || !strings.Contains(string(v.Claims), "INTEL-SA-00001") {
			t.Errorf("version %d: %+v %s", version, v.Facts, v.Claims)
		}
	}
}

// tdxViolations has a row for each rule, as violations.
var tdxViolations = []struct {
	rule, name string
	do         func(t *testing.T, w *tdxWorld)
}{
	{"format", "version 6", func(t *testing.T, w *tdxWorld) { w.edit = func(q []byte) { q[0] = 6 } }},
	{"chain", "CA of another root", func(t *testing.T, w *tdxWorld) {
		k := newKey(t)
		other := issue(t, "test root", true, k, nil, k)
		w.CA = issue(t, "test CA", true, w.CAKey, other, k)
	}},
	{"validity", "expired certificates", func(t *testing.T, w *tdxWorld) {
		w.in.Now = time.Now().Add(150 * time.Minute)
		w.in.Registration.TDX.AcceptMissingCollateral = true
	}},
	{"revocation", "revoked PCK", func(t *testing.T, w *tdxWorld) { w.Revoked = append(w.Revoked, w.PCK) }},
	{"revocation", "revoked CA", func(t *testing.T, w *tdxWorld) { w.Revoked = append(w.Revoked, w.CA) }},
	{"revocation", "revoked PCK without need of collateral", func(t *testing.T, w *tdxWorld) {
		w.Revoked = append(w.Revoked, w.PCK)
		w.in.Registration.TDX.AcceptMissingCollateral = true
	}},
	{"revocation", "expired lists", func(t *testing.T, w *tdxWorld) { w.Until = time.Now().Add(-time.Second) }},
	{"revocation", "no lists", func(t *testing.T, w *tdxWorld) { w.after = func() { os.RemoveAll(filepath.Join(w.dir, "crl")) } }},
	{"qe-signature", "QE report by another key", func(t *testing.T, w *tdxWorld) { w.PCKKey = newKey(t) }},
	{"attestation-key", "attestation key of another", func(t *testing.T, w *tdxWorld) { w.AttestationKey = newKey(t) }},
	{"signature", "body changed later", func(t *testing.T, w *tdxWorld) { w.edit = func(q []byte) { q[28] ^= 1 } }},
	{"tcb-info", "revoked level", func(t *testing.T, w *tdxWorld) {
		w.Status = "Revoked"
		w.in.Registration.TDX.AcceptTCB = []string{"Revoked"}
	}},
	{"qe-identity", "other enclave", func(t *testing.T, w *tdxWorld) { w.QE[256] = 3 }},
	// The host's own enclaves, which a PCK certifies like any other.
	{"qe-identity", "host's enclave without need of collateral", func(t *testing.T, w *tdxWorld) { w.QE[159] ^= 1; w.bare() }},
	{"qe-identity", "other enclave of Intel's without need of collateral", func(t *testing.T, w *tdxWorld) { w.QE[256] = 1; w.bare() }},
	{"qe-identity", "enclave under a debugger without need of collateral", func(t *testing.T, w *tdxWorld) { w.QE[48] |= 2; w.bare() }},
	{"debug", "debug", func(t *testing.T, w *tdxWorld) { w.body[120] |= 1 }},
	{"debug", "reserved TUD bit", func(t *testing.T, w *tdxWorld) { w.body[120] |= 0x80 }},
	{"migration", "migratable", func(t *testing.T, w *tdxWorld) { w.body[123] |= 0x20 }},
	{"migration", "service TD", func(t *testing.T, w *tdxWorld) { w.body[600] = 1 }},
	{"sept-ve", "SEPT_VE on", func(t *testing.T, w *tdxWorld) { w.body[123] = 0 }},
	{"module-signer", "debug module", func(t *testing.T, w *tdxWorld) { w.body[112] = 1 }},
	{"report-data", "report data of another", func(t *testing.T, w *tdxWorld) { w.body[520] ^= 1 }},
	{"report-data", "report data not padded with zeros", func(t *testing.T, w *tdxWorld) { w.body[583] = 1 }},
	{"config-id", "other initdata", func(t *testing.T, w *tdxWorld) { w.body[184] ^= 1 }},
	{"event-log", "event log of another", func(t *testing.T, w *tdxWorld) { w.log = []byte("not a log") }},
	{"measurement", "other measurement", func(t *testing.T, w *tdxWorld) { w.body[136] = 0 }},
	{"rtmr", "other RTMR2", func(t *testing.T, w *tdxWorld) { w.in.Registration.TDX.RTMR2 = []string{strings.Repeat("11", 48)} }},
	{"tcb-minimum", "out of date", func(t *testing.T, w *tdxWorld) { w.Status = "OutOfDate" }},
	{"tcb-minimum", "old level", func(t *testing.T, w *tdxWorld) { w.in.Registration.TDX.MinimumTCBDate = "2025-01-01" }},
	{"debug-guest", "initdata of a debug guest", func(t *testing.T, w *tdxWorld) { w.in.Debug = true }},
	{"debug-guest", "values of a debug image", func(t *testing.T, w *tdxWorld) { w.in.Registration.TDX.Debug = true }},
	{"test-root", "test root not taken", func(t *testing.T, w *tdxWorld) { w.in.Registration.TestRoots = false }},
	{"devices", "a device that did not come along", func(_ *testing.T, w *tdxWorld) {
		w.in.Registration.Devices = []evidence.TEE{evidence.TPM}
	}},
	{"tee-listed", "tdx not listed", func(t *testing.T, w *tdxWorld) { w.in.Registration.TEEs = []evidence.TEE{evidence.SNP} }},
	{"initdata-listed", "initdata not listed", func(t *testing.T, w *tdxWorld) { w.in.Registration.InitData = nil }},
}

func TestEachTDXRuleDeniesAlone(t *testing.T) {
	for _, tt := range tdxViolations {
		t.Run(tt.rule+"/"+tt.name, func(t *testing.T) {
			w := newTDXWorld(t, 5)
			tt.do(t, w)
			wantDenied(t, w.verify(t), tt.rule)
		})
	}
}

func TestTDXMissingCollateral(t *testing.T) {
	w := newTDXWorld(t, 4)
	w.bare()
	w.in.Registration.TDX.AcceptMissingCollateral = false
	wantDenied(t, w.verify(t), "tcb-info", "qe-identity", "tcb-minimum")
	w.in.Registration.TDX.AcceptMissingCollateral = true
	v := w.verify(t)
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
		return !c.pck.test && ofIntel(q.QEReport) == nil
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
