// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
)

// Part is a part of a guest that evidence can leave unproved.
type Part string

// The parts. Firmware is pinned by every registration there can be.
const (
	PartAgent    Part = "agent"
	PartInitData Part = "initdata"
)

// Gap says why a TEE's evidence proves nothing about a part under this registration.
type Gap struct {
	Part Part
	Why  string
}

// Gaps returns what r leaves unproved: whatever a host puts there, the evidence fits.
func (r *Registration) Gaps() []Gap {
	var gaps []Gap
	add := func(part Part, why string) { gaps = append(gaps, Gap{part, why}) }
	if r.Takes(evidence.Sample) {
		add(PartAgent, "sample evidence is signed by nobody")
		add(PartInitData, "sample evidence is signed by nobody")
	}
	if r.Takes(evidence.SNP) && r.SNP != nil && r.SNP.FirmwareOnly {
		add(PartAgent, "snp.firmware_only: the launch digest is that of firmware that boots any kernel")
	}
	if r.Takes(evidence.TDX) && r.TDX != nil && (len(r.TDX.RTMR1) == 0 || len(r.TDX.RTMR2) == 0) {
		add(PartAgent, "tdx without rtmr1 and rtmr2: any kernel, command line and initrd match")
	}
	if r.Takes(evidence.TPM) && r.TPM != nil && !r.TPM.PCRs.coverInitrd() {
		add(PartAgent, "tpm.pcrs without 9 and 11: any initrd matches")
	}
	if slices.ContainsFunc(r.TEEs, OnAzure) && r.Azure != nil && !r.Azure.PCRs.coverInitrd() {
		add(PartAgent, "azure.pcrs without 9 and 11: any initrd matches")
	}
	return gaps
}

func (p PCRs) coverInitrd() bool { return measuresInto(p.Register(9)) || measuresInto(p.Register(11)) }

// measuresInto reports whether every accepted value of a register is one that something
// was measured into: EFI stubs put the initrd into register 9, systemd's the parts of a
// unified kernel image into 11.
func measuresInto(values []string) bool {
	return len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return strings.Trim(v, "0") == "" })
}

// Accepts reports whether r says that it does without proof of part.
func (r *Registration) Accepts(part Part) bool { return slices.Contains(r.AcceptUnproved, part) }

// CheckPart returns an error unless part has a name of its own here.
func CheckPart(part Part) error {
	if part != PartAgent && part != PartInitData {
		return fmt.Errorf("accept_unproved %q: want %s or %s", part, PartAgent, PartInitData)
	}
	return nil
}

// validateProof refuses gaps that the owner has not accepted by name.
func (r *Registration) validateProof() error {
	for _, part := range r.AcceptUnproved {
		if err := CheckPart(part); err != nil {
			return err
		}
	}
	var refused []string
	var parts []string
	for _, gap := range r.Gaps() {
		if !r.Accepts(gap.Part) {
			refused = append(refused, fmt.Sprintf("%s is unproved: %s", gap.Part, gap.Why))
			if !slices.Contains(parts, string(gap.Part)) {
				parts = append(parts, string(gap.Part))
			}
		}
	}
	if len(refused) > 0 {
		return fmt.Errorf("%s (--accept-unproved=%s takes that)", strings.Join(refused, "; "), strings.Join(parts, ","))
	}
	return nil
}
