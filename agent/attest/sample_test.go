// SPDX-License-Identifier: Apache-2.0

//go:build sample

package attest

import (
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// The two say on the wire what upstream's say, by which verifiers tell them apart.
func TestSamplesOnTheWire(t *testing.T) {
	tee, err := Detect(Config{TEE: evidence.Sample})
	if err != nil {
		t.Fatal(err)
	}
	devices, err := Devices(Config{}, []evidence.TEE{evidence.SampleDevice})
	if err != nil || len(devices) != 1 {
		t.Fatal(devices, err)
	}
	data, err := evidence.RawReportData([]byte{0})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		a          Attester
		name, want string
	}{{tee, "sample", `{"svn":"1","report_data":"AA=="}`}, {devices[0], "sampledevice", `{"svn":"2","report_data":"AA=="}`}} {
		got, err := tt.a.Evidence(t.Context(), data)
		if err != nil || string(got) != tt.want || string(tt.a.TEE()) != tt.name {
			t.Errorf("%s: got %s, %v", tt.a.TEE(), got, err)
		}
		if _, err := tt.a.Evidence(t.Context(), evidence.ReportData{}); err == nil {
			t.Errorf("%s: evidence bound to nothing", tt.name)
		}
	}
}
