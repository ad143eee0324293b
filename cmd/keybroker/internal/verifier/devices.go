// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// deviceTable are the rules on the parts of devices (Trustee's additional evidence). The
// report of the TEE binds the text of all parts, and so their keys; each part for itself is
// bound to the nonce and the TEE key of the same handshake.
type deviceTable struct {
	composite []check[Input]
	tpm       []check[*tpmCase]
	sample    []check[*sampleCase]
}

// deviceTables leaves out initdata's register: the TEE's report carries the digest.
func deviceTables() deviceTable {
	t := deviceTable{composite: []check[Input]{{name: "composite", judge: checkComposite}}}
	for _, row := range tpmChecks() {
		if row.name != "initdata-register" {
			row.name = "tpm-" + row.name
			t.tpm = append(t.tpm, row)
		}
	}
	for _, row := range sampleChecks() {
		row.name = "sampledevice-" + row.name
		t.sample = append(t.sample, row)
	}
	return t
}

// checkComposite wants a TEE that a device can be bound to: what a TPM signs for itself
// binds no other TPM, and Azure's guests have one.
func checkComposite(in Input) (wanted, found string, ok bool) {
	return "devices beside snp, tdx or sample", fmt.Sprintf("beside %s", in.TEE), owner.TakesDevices(in.TEE)
}

// judgeDevices judges each part and adds what it finds to v, which is complete only when
// every part was judged to the end.
func judgeDevices(in Input, t deviceTable, v *Verdict) {
	if len(in.Devices) == 0 {
		return
	}
	add := func(findings []Finding, complete bool) {
		v.Findings, v.complete = append(v.Findings, findings...), v.complete && complete
	}
	add(run(t.composite, in))
	var names []string
	for _, part := range in.Devices {
		names = append(names, string(part.Device))
		in := in
		in.TEE, in.Evidence, in.ReportData, in.Devices = part.Device, part.Evidence, in.DeviceData, nil
		one := DeviceVerdict{Device: part.Device}
		switch part.Device {
		case evidence.TPM:
			add(one.tpm(in, t.tpm, &v.Facts))
		case evidence.SampleDevice:
			add(one.sample(in, t.sample))
		default:
			add([]Finding{{Rule: "composite", Wanted: "a device with a verifier: tpm, sampledevice", Found: string(part.Device)}}, false)
		}
		v.Devices = append(v.Devices, one)
	}
	v.Facts.Devices = strings.Join(names, deviceSeparator)
}

// tpm claims of a key that the owner pinned what a TPM can prove, and of another nothing:
// that the TEE's report binds it says that the measured guest asked this TPM, not who made it.
func (d *DeviceVerdict) tpm(in Input, checks []check[*tpmCase], facts *Facts) ([]Finding, bool) {
	c := &tpmCase{in: in}
	findings, complete := run(checks, c)
	if !complete {
		return findings, false
	}
	facts.AttestationKey = evidence.KeyDigest(c.ev.AttestationKey)
	for i := range facts.PCR {
		facts.PCR[i] = fmt.Sprintf("%x", c.ev.Registers[i])
	}
	if len(Failed(findings)) > 0 {
		return findings, true
	}
	pinned := keyPinned(in.Registration, facts.AttestationKey)
	if pinned {
		d.Vector.Hardware = tpmVector.Hardware
	}
	if pinned && len(in.Registration.TPM.PCRs) > 0 {
		d.Vector.Executables = tpmVector.Executables
	}
	claims := tpmClaims(c)
	claims["ak_pinned"] = pinned
	var err error
	d.Claims, err = json.Marshal(claims, json.Deterministic(true))
	return findings, err == nil
}

func (d *DeviceVerdict) sample(in Input, checks []check[*sampleCase]) ([]Finding, bool) {
	c := &sampleCase{in: in}
	c.ev, c.err = evidence.ParseSampleEvidence(in.Evidence)
	findings, complete := run(checks, c)
	d.Vector = sampleVector
	if !complete || len(Failed(findings)) > 0 {
		return findings, complete
	}
	var err error
	d.Claims, err = json.Marshal(map[string]string{"svn": c.ev.SVN, "report_data": fmt.Sprintf("%x", c.ev.ReportData)}, json.Deterministic(true))
	return findings, err == nil
}

const deviceSeparator = ","

// has reports whether evidence of device came along.
func (f *Facts) has(device evidence.TEE) bool {
	return slices.Contains(strings.Split(f.Devices, deviceSeparator), string(device))
}

// checkDevices wants each device that the workload lists and no other: one that is not
// there would be the host's choice.
func checkDevices(c claim) (wanted, found string, ok bool) {
	list := make([]string, len(c.registration.Devices))
	for i, device := range c.registration.Devices {
		list[i] = string(device)
	}
	slices.Sort(list)
	want := strings.Join(list, deviceSeparator)
	return orNone(want), orNone(c.facts.Devices), want == c.facts.Devices
}

func orNone(text string) string {
	if text == "" {
		return "no devices"
	}
	return text
}
