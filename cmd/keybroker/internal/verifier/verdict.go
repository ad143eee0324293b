// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// Finding is the outcome of one rule. Wanted and Found are for the owner, never for
// the guest or its host.
type Finding struct {
	Rule   string `json:"rule"`
	OK     bool   `json:"ok"`
	Wanted string `json:"wanted"`
	Found  string `json:"found"`
}

// Facts is what accepted evidence says about the guest, in the form that a token
// carries so that a release can compare it with the registration as it is then.
type Facts struct {
	TEE evidence.TEE `json:"tee"`
	// Measurement is the launch measurement in lower-case hex, "" when the TEE has none.
	Measurement string `json:"measurement"`
	// InitData is the digest of the initdata document, ALGORITHM:HEX.
	InitData string `json:"initdata"`
	// Product is the product line as in owner.SNPReference, "" when the TEE has none.
	Product string `json:"product"`
	// TCB is the firmware to hold against a minimum: each component the lowest of the
	// levels in the report.
	TCB owner.TCB `json:"tcb"`
	// RTMR are the run-time registers 0 to 3 of a TDX guest in lower-case hex.
	RTMR [4]string `json:"rtmr,omitzero"`
	// TCBStatus is Intel's word for the platform's firmware, owner.TCBUnknown without
	// collateral; TCBDate is the date of that level, YYYY-MM-DD.
	TCBStatus string `json:"tcb_status,omitzero"`
	TCBDate   string `json:"tcb_date,omitzero"`
	// Devices are the devices beside the TEE whose evidence came along, in the order of their
	// names, divided by commas.
	Devices string `json:"devices,omitzero"`
	// AttestationKey is the TPM key that signed, as evidence.KeyDigest has it. It and PCR are
	// those of the TPM that is the TEE, is part of it, or attests beside it.
	AttestationKey string `json:"attestation_key,omitzero"`
	// PCR are the registers 0 to 23 of a TPM in lower-case hex.
	PCR [evidence.TPMRegisters]string `json:"pcr,omitzero"`
	// Debug says that the guest is a debug image: by its initdata, or by the mark of the
	// reference values that it matches.
	Debug bool `json:"debug,omitzero"`
	// TestRoot says that the chain ends at a root given for tests.
	TestRoot bool `json:"test_root"`
}

// Vector is the part of the AR4SI trustworthiness vector that this verifier claims;
// the other members are 0, "no claim".
type Vector struct {
	Hardware      int
	Executables   int
	Configuration int
}

// Verdict is the judgement of one piece of evidence.
type Verdict struct {
	Facts Facts
	// Findings has a row for each check that was judged, in the order of the tables.
	Findings []Finding
	// Claims are the members that Trustee's verifier derives for the TEE, as JSON.
	Claims []byte
	Vector Vector
	// Devices are the parts of devices, in the order of Facts.Devices.
	Devices []DeviceVerdict

	complete bool // every row of every table was judged
}

// DeviceVerdict is what is claimed of one device beside the TEE.
type DeviceVerdict struct {
	Device evidence.TEE
	// Claims are as in Verdict, nil where a rule on this device denied.
	Claims []byte
	Vector Vector
}

// Allowed reports whether every rule was judged and none failed.
func (v Verdict) Allowed() bool {
	return v.complete && len(v.Findings) > 0 && len(v.Failed()) == 0
}

// Failed returns the findings that deny, the most telling first.
func (v Verdict) Failed() []Finding { return Failed(v.Findings) }

// Failed returns those of findings that are not OK.
func Failed(findings []Finding) []Finding {
	var failed []Finding
	for _, f := range findings {
		if !f.OK {
			failed = append(failed, f)
		}
	}
	return failed
}

// check is one row: a rule over a case of type T. When a gate fails, what the later
// rows would look at does not exist, and they are not judged.
type check[T any] struct {
	name  string
	gate  bool
	judge func(T) (wanted, found string, ok bool)
}

// run judges the rows in order and reports whether it reached the end.
func run[T any](checks []check[T], c T) (findings []Finding, complete bool) {
	for _, row := range checks {
		wanted, found, ok := row.judge(c)
		findings = append(findings, Finding{Rule: row.name, OK: ok, Wanted: wanted, Found: found})
		if !ok && row.gate {
			return findings, false
		}
	}
	return findings, true
}
