// SPDX-License-Identifier: Apache-2.0

//go:build interop

package verifier

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	sevdata "github.com/google/go-sev-guest/verify/testdata"
	tdxdata "github.com/google/go-tdx-guest/testing/testdata"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// stand reports whether every one of rules was judged and holds.
func stand(v Verdict, rules ...string) bool {
	held := 0
	for _, f := range v.Findings {
		if slices.Contains(rules, f.Rule) && f.OK {
			held++
		}
	}
	return held == len(rules)
}

// TestInteropRealSNPEvidence sends the report of a real Milan through Trustee's JSON form
// to the whole verifier: AMD's chain and the signature hold, and with any byte of the
// signed part changed one of them, or the reading, fails.
func TestInteropRealSNPEvidence(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	judge := func(raw []byte) bool {
		report, err := evidence.ParseSNPReport(raw)
		if err != nil {
			return false
		}
		ev, err := evidence.SNPEvidence{Report: report, Certs: []evidence.SNPCert{{Type: evidence.SNPCertVCEK, DER: sevdata.VcekBytes}}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		verdict := v.Verify(Input{TEE: evidence.SNP, Evidence: ev, Now: time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC), Registration: owner.Registration{
			TEEs: []evidence.TEE{evidence.SNP}, SNP: &owner.SNPReference{Measurements: []string{fmt.Sprintf("%x", report.Measurement())}, AcceptMissingCRL: true},
		}})
		return stand(verdict, "format", "chain", "signature") && !verdict.Facts.TestRoot
	}
	good := sevdata.AttestationBytes[:evidence.SNPReportSize]
	if !judge(good) {
		t.Fatal("a real report is refused")
	}
	for at := range evidence.SNPSignedSize {
		for _, bit := range []byte{0x01, 0x80} {
			raw := slices.Clone(good)
			raw[at] ^= bit
			if judge(raw) {
				t.Errorf("byte %#x changed and not noticed", at)
			}
		}
	}
}

// TestInteropRealTDXEvidence does the same with a real quote: what Intel's keys signed is
// the header and body, the quoting enclave's report and what that binds.
func TestInteropRealTDXEvidence(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	quote := bytes.TrimSuffix(tdxdata.RawQuote, []byte("\nextra bytes(only for testing purpose)\n"))
	judge := func(quote []byte) bool {
		ev, err := json.Marshal(map[string]any{"cc_eventlog": nil, "quote": quote}) // as Trustee writes it
		if err != nil {
			t.Fatal(err)
		}
		verdict := v.Verify(Input{TEE: evidence.TDX, Evidence: ev, Now: time.Date(2023, 7, 1, 0, 0, 0, 0, time.UTC), Registration: owner.Registration{
			TEEs: []evidence.TEE{evidence.TDX}, TDX: &owner.TDXReference{AcceptMissingCollateral: true},
		}})
		return stand(verdict, "format", "chain", "validity", "qe-signature", "attestation-key", "signature") && !verdict.Facts.TestRoot
	}
	if !judge(quote) {
		t.Fatal("a real quote is refused")
	}
	const (
		body       = 48 + 584
		signature  = body + 4
		key        = signature + 64
		qeReport   = key + 64 + 6
		qeAuthData = qeReport + 384 + 64 + 2
	)
	for _, part := range []struct{ from, to int }{{0, body}, {signature, key + 64}, {qeReport, qeAuthData - 2}, {qeAuthData, qeAuthData + 32}} {
		for at := part.from; at < part.to; at++ {
			for _, bit := range []byte{0x01, 0x80} {
				q := bytes.Clone(quote)
				q[at] ^= bit
				if judge(q) {
					t.Errorf("byte %d changed and not noticed", at)
				}
			}
		}
	}
}
