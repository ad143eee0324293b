// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// composite is an SNP machine with a TPM beside it, and a registration that wants both.
type composite struct {
	*world
	tpm    *tpmWorld
	sample string // evidence of a sample device, "" for none
}

func newComposite(t testing.TB) *composite {
	t.Helper()
	c := &composite{world: newWorld(t, milan()), tpm: newTPMWorld(t)}
	c.tpm.registers[evidence.TPMInitDataRegister] = [32]byte{} // HOST_DATA has it
	c.in.Registration.Devices = []evidence.TEE{evidence.TPM}
	c.in.Registration.TPM = c.tpm.in.Registration.TPM
	c.build(t)
	return c
}

// withSample adds a sample device, whose evidence proves nothing.
func (c *composite) withSample(t testing.TB) {
	t.Helper()
	c.in.Registration.Devices = append(c.in.Registration.Devices, evidence.SampleDevice)
	c.in.Registration.Policy = "package policy"
	text, err := evidence.SampleEvidence{SVN: "2", ReportData: c.tpm.in.ReportData.Digest()}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	c.sample = string(text)
}

// build makes the parts of the devices as they are now.
func (c *composite) build(t testing.TB) {
	t.Helper()
	c.in.DeviceData = c.tpm.in.ReportData
	c.in.Devices = nil
	if c.sample != "" {
		c.in.Devices = append(c.in.Devices, evidence.DeviceEvidence{Device: evidence.SampleDevice, Evidence: []byte(c.sample)})
	}
	c.in.Devices = append(c.in.Devices, evidence.DeviceEvidence{Device: evidence.TPM, Evidence: []byte(c.tpm.evidence(t))})
}

// compositeViolations are about the devices; those about the TEE are its own.
var compositeViolations = []struct {
	rule, name string
	do         func(t *testing.T, c *composite)
}{
	{"devices", "a device that the workload does not list", func(_ *testing.T, c *composite) { c.in.Registration.Devices = nil }},
	{"devices", "one device for another", func(_ *testing.T, c *composite) {
		c.in.Registration.Devices = []evidence.TEE{evidence.SampleDevice}
	}},
	{"devices", "a device of two is missing", func(t *testing.T, c *composite) {
		c.withSample(t)
		c.sample = ""
	}},
	{"tpm-report-data", "a quote that binds what the TEE's report binds", func(_ *testing.T, c *composite) {
		bound := c.in.ReportData.Bytes32()
		c.tpm.extra = bound[:]
	}},
	{"sampledevice-format", "a sample that is none", func(t *testing.T, c *composite) {
		c.withSample(t)
		c.sample = `{"svn":2}`
	}},
	{"sampledevice-report-data", "a sample of another handshake", func(t *testing.T, c *composite) {
		c.withSample(t)
		text, err := evidence.SampleEvidence{SVN: "2", ReportData: reportData(t).Digest()}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		c.sample = string(text)
	}},
}

// eachCompositeViolation hands out what one rule denies, ready to be judged.
func eachCompositeViolation(t *testing.T, do func(rule, name string, c *composite)) {
	for _, tt := range violations {
		if tt.rule == "devices" {
			continue // they are about machines without devices
		}
		c := newComposite(t)
		tt.do(t, c.world)
		do(tt.rule, "snp: "+tt.name, c)
	}
	for _, tt := range tpmViolations {
		rule := "tpm-" + tt.rule
		if registered := tt.rule == "attestation-key-listed" || tt.rule == "pcrs" && !strings.Contains(tt.name, "lists no register"); registered {
			rule = tt.rule
		} else if !slices.Contains(names(deviceTables().tpm), rule) {
			continue
		}
		c := newComposite(t)
		tt.do(t, c.tpm)
		c.build(t)
		do(rule, "tpm: "+tt.name, c)
	}
	for _, tt := range compositeViolations {
		c := newComposite(t)
		tt.do(t, c)
		c.build(t)
		do(tt.rule, tt.name, c)
	}
}

func compositeSentences(t *testing.T) (list []sentence) {
	eachCompositeViolation(t, func(rule, name string, c *composite) {
		c.verify(t)
		list = append(list, sentence{rule, name, c.verifier, c.in})
	})
	beside := newTPMWorld(t)
	beside.verify(t)
	beside.in.DeviceData, beside.in.Devices = beside.in.ReportData, []evidence.DeviceEvidence{{Device: evidence.TPM, Evidence: beside.in.Evidence}}
	beside.in.Registration.Devices = []evidence.TEE{evidence.TPM}
	return append(list, sentence{"composite", "a TPM beside a TPM", nil, beside.in})
}

func TestEachCompositeRuleDeniesAlone(t *testing.T) {
	c := newComposite(t)
	c.withSample(t)
	c.build(t)
	wantAllowed(t, c.verify(t))
	if err := c.in.Registration.Validate(); err != nil {
		t.Fatal(err)
	}
	eachCompositeViolation(t, func(rule, name string, c *composite) {
		t.Run(rule+"/"+name, func(t *testing.T) { wantDenied(t, c.verify(t), rule) })
	})
}

// What is claimed of each part is apart from the others, and a TPM that nobody vouches for
// lends the TEE nothing.
func TestCompositeClaims(t *testing.T) {
	c := newComposite(t)
	c.withSample(t)
	c.build(t)
	v := c.verify(t)
	wantAllowed(t, v)
	if v.Facts.TEE != evidence.SNP || v.Facts.Devices != "sampledevice,tpm" || v.Facts.AttestationKey != evidence.KeyDigest(spki(t, c.tpm.key)) ||
		v.Facts.PCR[4] != fmt.Sprintf("%x", c.tpm.registers[4]) {
		t.Errorf("facts %+v", v.Facts)
	}
	if len(v.Devices) != 2 || v.Devices[0].Device != evidence.SampleDevice || v.Devices[0].Vector != sampleVector ||
		v.Devices[1].Device != evidence.TPM || v.Devices[1].Vector != (Vector{Hardware: 2, Executables: 3}) || v.Vector != snpVector {
		t.Fatalf("devices %+v, vector %+v", v.Devices, v.Vector)
	}
	own, tpm, sample := asJSON(t, v.Claims), asJSON(t, v.Devices[1].Claims), asJSON(t, v.Devices[0].Claims)
	if own["pcr00"] != nil || tpm["measurement"] != nil || tpm["ak_pinned"] != true || tpm["ak_public"] != b64(spki(t, c.tpm.key)) || sample["svn"] != "2" {
		t.Errorf("claims %v, %v, %v", own, tpm, sample)
	}

	c = newComposite(t)
	c.in.Registration.TPM = &owner.TPMReference{}
	v = c.verify(t)
	wantAllowed(t, v) // and the workload's own policy decides, which Validate demands
	if d := v.Devices[0]; d.Vector != (Vector{}) || asJSON(t, d.Claims)["ak_pinned"] != false {
		t.Errorf("claims %+v, %s for a TPM that nobody vouches for", d.Vector, d.Claims)
	}
	if err := c.in.Registration.Validate(); err == nil || !strings.Contains(err.Error(), "only a policy of the workload's own") {
		t.Errorf("such a registration without a policy: %v", err)
	}
}

// The parser refuses these names already.
func TestDeviceWithoutVerifierIsRefused(t *testing.T) {
	c := newComposite(t)
	c.in.Devices = append(c.in.Devices, evidence.DeviceEvidence{Device: "nvidia", Evidence: []byte(`{}`)})
	c.in.Registration.Devices = append(c.in.Registration.Devices, "nvidia")
	wantDenied(t, c.verify(t), "composite")
}

// A device that is taken back counts at the next release.
func TestDevicesAtRelease(t *testing.T) {
	c := newComposite(t)
	v := c.verify(t)
	wantAllowed(t, v)
	r := c.in.Registration
	if failed := Failed(Recheck(v.Facts, r)); len(failed) != 0 {
		t.Fatalf("%+v", failed)
	}
	r.Devices = nil
	if failed := Failed(Recheck(v.Facts, r)); len(failed) != 1 || failed[0].Rule != "devices" {
		t.Errorf("device taken back: %+v", failed)
	}
	r = c.in.Registration
	r.TPM = &owner.TPMReference{AttestationKeys: []string{"sha256:" + strings.Repeat("11", 32)}}
	if failed := Failed(Recheck(v.Facts, r)); len(failed) != 1 || failed[0].Rule != "attestation-key-listed" {
		t.Errorf("key taken back: %+v", failed)
	}
}

// A TD takes a TPM beside it by the same rules.
func TestTPMBesideATD(t *testing.T) {
	w, tpm := newTDXWorld(t, 5), newTPMWorld(t)
	v := w.verifier(t)
	w.in.DeviceData, w.in.Devices = tpm.in.ReportData, []evidence.DeviceEvidence{{Device: evidence.TPM, Evidence: []byte(tpm.evidence(t))}}
	wantDenied(t, v.Verify(w.in), "devices", "attestation-key-listed")
	w.in.Registration.Devices, w.in.Registration.TPM = []evidence.TEE{evidence.TPM}, tpm.in.Registration.TPM
	got := v.Verify(w.in)
	wantAllowed(t, got)
	if got.Facts.TEE != evidence.TDX || got.Devices[0].Vector.Hardware != 2 {
		t.Errorf("%+v, devices %+v", got.Facts, got.Devices)
	}
	w.in.DeviceData = reportData(t)
	wantDenied(t, v.Verify(w.in), "tpm-report-data")
}
