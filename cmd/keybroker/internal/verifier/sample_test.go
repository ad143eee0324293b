// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

func sampleInput(t *testing.T) Input {
	t.Helper()
	in := Input{TEE: evidence.Sample, ReportData: reportData(t), InitData: Digest{evidence.SHA384, []byte(strings.Repeat("d", 48))}, Now: time.Now()}
	var err error
	if in.Evidence, err = (evidence.SampleEvidence{SVN: "1", ReportData: in.ReportData.Digest()}).Encode(); err != nil {
		t.Fatal(err)
	}
	in.Registration = owner.Registration{ID: "web", TEEs: []evidence.TEE{evidence.Sample}, InitData: []string{in.InitData.String()}}
	return in
}

func TestSample(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	verdict := v.Verify(sampleInput(t))
	wantAllowed(t, verdict)
	if verdict.Vector.Hardware <= 96 {
		t.Errorf("sample evidence claims hardware %d, want contraindicated", verdict.Vector.Hardware)
	}
	for _, tt := range []struct {
		rule string
		do   func(in *Input)
	}{
		{"format", func(in *Input) { in.Evidence = []byte(`{"svn":"1"}`) }},
		{"report-data", func(in *Input) { in.ReportData = reportData(t) }},
		{"report-data", func(in *Input) {
			padded := in.ReportData.Bytes64()
			in.Evidence, _ = (evidence.SampleEvidence{SVN: "1", ReportData: padded[:]}).Encode()
		}},
		{"tee-listed", func(in *Input) { in.Registration.TEEs = []evidence.TEE{evidence.SNP} }},
		{"initdata-listed", func(in *Input) { in.InitData = Digest{} }},
		{"initdata-listed", func(in *Input) { in.Registration.InitData = nil }},
	} {
		in := sampleInput(t)
		tt.do(&in)
		wantDenied(t, v.Verify(in), tt.rule)
	}
}

func TestOtherTEEsHaveNoVerifier(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tee := range []evidence.TEE{evidence.CCA, "", "SNP"} {
		in := sampleInput(t)
		in.TEE = tee
		in.Registration.TEEs = append(in.Registration.TEEs, tee)
		verdict := v.Verify(in)
		if verdict.Allowed() || verdict.Failed()[0].Rule != "verifier" {
			t.Errorf("%q: %+v", tee, verdict)
		}
		if Supports(tee) {
			t.Errorf("Supports(%q)", tee)
		}
	}
}
