// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// TestUnprovedIsRefused: a registration under which a host could put another agent, or
// other initdata, into the guest is refused until the owner names the part.
func TestUnprovedIsRefused(t *testing.T) {
	value48, value32 := strings.Repeat("22", 48), strings.Repeat("22", 32)
	base := Registration{ID: "web", InitData: []string{"sha256:" + value32}}
	key := []string{"sha256:" + value32}
	for _, tt := range []struct {
		name   string
		change func(r *Registration)
		gaps   []Part
	}{
		{"snp with kernel hashes", func(r *Registration) {
			r.TEEs, r.SNP = []evidence.TEE{evidence.SNP}, &SNPReference{Measurements: []string{value48}}
		}, nil},
		{"snp, firmware only", func(r *Registration) {
			r.TEEs, r.SNP = []evidence.TEE{evidence.SNP}, &SNPReference{Measurements: []string{value48}, FirmwareOnly: true}
		}, []Part{PartAgent}},
		{"tdx with its kernel", func(r *Registration) {
			r.TEEs, r.TDX = []evidence.TEE{evidence.TDX}, &TDXReference{Measurements: []string{value48}, RTMR1: []string{value48}, RTMR2: []string{value48}}
		}, nil},
		{"tdx without rtmr1", func(r *Registration) {
			r.TEEs, r.TDX = []evidence.TEE{evidence.TDX}, &TDXReference{Measurements: []string{value48}, RTMR2: []string{value48}}
		}, []Part{PartAgent}},
		{"tdx without rtmr2", func(r *Registration) {
			r.TEEs, r.TDX = []evidence.TEE{evidence.TDX}, &TDXReference{Measurements: []string{value48}, RTMR1: []string{value48}}
		}, []Part{PartAgent}},
		{"tpm with a UKI's sections", func(r *Registration) {
			r.TEEs, r.TPM = []evidence.TEE{evidence.TPM}, &TPMReference{AttestationKeys: key, PCRs: map[string][]string{"0": {value32}, "4": {value32}, "11": {value32}}}
		}, nil},
		{"tpm without an initrd's register", func(r *Registration) {
			r.TEEs, r.TPM = []evidence.TEE{evidence.TPM}, &TPMReference{AttestationKeys: key, PCRs: map[string][]string{"0": {value32}, "4": {value32}}}
		}, []Part{PartAgent}},
		{"tpm whose sections were not measured", func(r *Registration) {
			r.TEEs, r.TPM = []evidence.TEE{evidence.TPM}, &TPMReference{AttestationKeys: key, PCRs: map[string][]string{"0": {value32}, "4": {value32}, "11": {value32, strings.Repeat("00", 32)}}}
		}, []Part{PartAgent}},
		{"sample", func(r *Registration) {
			r.TEEs, r.Policy = []evidence.TEE{evidence.Sample}, "package policy"
		}, []Part{PartAgent, PartInitData}},
	} {
		r := base
		tt.change(&r)
		err := r.Validate()
		if (err == nil) != (len(tt.gaps) == 0) {
			t.Errorf("%s: %v", tt.name, err)
		}
		// What an earlier keybroker took can still be read.
		body, encoded := r.JSON()
		if _, err := ParseStored(body); err != nil || encoded != nil {
			t.Errorf("%s: kept, and not read again: %v, %v", tt.name, err, encoded)
		}
		if _, err := ParseJSON(body); (err == nil) != (len(tt.gaps) == 0) {
			t.Errorf("%s: as it travels: %v", tt.name, err)
		}
		for i, part := range tt.gaps {
			if err != nil && !strings.Contains(err.Error(), string(part)+" is unproved: ") {
				t.Errorf("%s: %v, want it to name %s", tt.name, err, part)
			}
			// All but one is not enough.
			r.AcceptUnproved = slices.Delete(slices.Clone(tt.gaps), i, i+1)
			if r.Validate() == nil {
				t.Errorf("%s: registered without accepting %s", tt.name, part)
			}
		}
		if r.AcceptUnproved = tt.gaps; r.Validate() != nil {
			t.Errorf("%s: accepted, and %v", tt.name, r.Validate())
		}
	}
	r := base
	r.TEEs, r.SNP, r.AcceptUnproved = []evidence.TEE{evidence.SNP}, &SNPReference{Measurements: []string{value48}}, []Part{"firmware"}
	if err := r.Validate(); err == nil || !strings.Contains(err.Error(), `"firmware"`) {
		t.Errorf("got %v", err)
	}
}
