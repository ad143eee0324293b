// SPDX-License-Identifier: Apache-2.0

package owner

import "github.com/casemate/casemate/agent/evidence"

// Registration says which guests are the workload and may have its secrets. Every
// list is a list of alternatives; an empty one matches nothing.
type Registration struct {
	// ID names the workload. The guest's initdata selects a registration by it, which
	// authorises nothing: what counts is InitData and the measurements.
	ID string `toml:"id" json:"id"`

	// Description is for people, at most MaxDescriptionSize bytes.
	Description string `toml:"description,omitempty" json:"description,omitempty"`

	// TEEs are the kinds of evidence taken, by their names in the KBS protocol.
	TEEs []evidence.TEE `toml:"tees" json:"tees"`

	// Devices are what must attest beside the TEE, "tpm" or "sampledevice": evidence of each
	// must come along, and of no other. With TEEs "snp", "tdx" and "sample" alone.
	Devices []evidence.TEE `toml:"devices,omitempty" json:"devices,omitempty"`

	// InitData are the accepted digests of the guest's initdata document, verbatim, as
	// "sha256:", "sha384:" or "sha512:" and lower-case hex.
	InitData []string `toml:"initdata" json:"initdata"`

	// SNP are the reference values for AMD SEV-SNP. Required when TEEs has "snp" or
	// "az-snp-vtpm".
	SNP *SNPReference `toml:"snp,omitempty" json:"snp,omitempty"`

	// TDX are the reference values for Intel TDX. Required when TEEs has "tdx" or "az-tdx-vtpm".
	TDX *TDXReference `toml:"tdx,omitempty" json:"tdx,omitempty"`

	// TPM are the reference values for a plain TPM 2.0. Required when TEEs has "tpm", or
	// Devices.
	TPM *TPMReference `toml:"tpm,omitempty" json:"tpm,omitempty"`

	// Azure are the reference values for the vTPM of Azure's paravisor. Required, beside SNP
	// or TDX for the hardware below it, when TEEs has "az-snp-vtpm" or "az-tdx-vtpm".
	Azure *AzureReference `toml:"azure,omitempty" json:"azure,omitempty"`

	// TestRoots admits evidence whose chain ends at a root that this keybroker was
	// told to trust for tests. Such evidence proves nothing about hardware.
	TestRoots bool `toml:"test_roots,omitempty" json:"test_roots,omitempty"`

	// AcceptUnproved are the parts that the owner does without proof of; a gap that is
	// not accepted is refused (Gaps).
	AcceptUnproved []Part `toml:"accept_unproved,omitempty" json:"accept_unproved,omitempty"`

	// Debug admits debug guests, which give a shell to whoever holds their console: the host.
	// Guests say so in their initdata, and reference values of their images are marked.
	Debug bool `toml:"debug,omitempty" json:"debug,omitempty"`

	// Policy is the workload's own resource policy: Rego v1, package policy, rule
	// allow. Empty means the keybroker's built-in policy, which wants every submodule of
	// the token affirming.
	Policy string `toml:"policy,omitempty" json:"policy,omitempty"`
}

// SNPReference are the reference values for reports of AMD SEV-SNP.
type SNPReference struct {
	// Measurements are the accepted launch digests: 48 bytes, lower-case hex.
	Measurements []string `toml:"measurements" json:"measurements"`

	// Debug says that these are the values of debug images, as casemate-build measure
	// finds. It asks for Registration.Debug.
	Debug bool `toml:"debug,omitempty" json:"debug,omitempty"`

	// MinimumTCB is the lowest accepted firmware by product line: "milan", "genoa"
	// (with Bergamo and Siena) or "turin", compared with the lowest of the report's
	// four TCB versions. Nil leaves it to the keybroker's own floor, which there is none
	// of for Turin; otherwise a product line that is not listed is refused.
	MinimumTCB map[string]TCB `toml:"minimum_tcb,omitempty" json:"minimum_tcb,omitempty"`

	// FirmwareOnly says that Measurements were computed without kernel hashes: they pin
	// the firmware, and whatever that boots from a disk matches.
	FirmwareOnly bool `toml:"firmware_only,omitempty" json:"firmware_only,omitempty"`

	// AcceptMissingCRL takes evidence whose certificate revocation list is absent from
	// the keybroker or past its next update. A revoked certificate is always refused.
	AcceptMissingCRL bool `toml:"accept_missing_crl,omitempty" json:"accept_missing_crl,omitempty"`
}

// TCB are the security version numbers of SNP firmware components. A component left
// out is 0, which every platform has at least. FMC exists from Turin on.
type TCB struct {
	FMC        uint8 `toml:"fmc,omitempty" json:"fmc,omitempty"`
	Bootloader uint8 `toml:"bootloader" json:"bootloader"`
	TEE        uint8 `toml:"tee" json:"tee"`
	SNP        uint8 `toml:"snp" json:"snp"`
	Microcode  uint8 `toml:"microcode" json:"microcode"`
}

// Names of the product lines that have their own ARK at AMD and their own MinimumTCB.
const (
	Milan = "milan"
	Genoa = "genoa"
	Turin = "turin"
)

// Takes reports whether tee is among r.TEEs.
func (r *Registration) Takes(tee evidence.TEE) bool {
	for _, t := range r.TEEs {
		if t == tee {
			return true
		}
	}
	return false
}

// Measurements returns the accepted launch measurements for tee, nil when it has none.
func (r *Registration) Measurements(tee evidence.TEE) []string {
	if OnSNP(tee) && r.SNP != nil {
		return r.SNP.Measurements
	}
	if OnTDX(tee) && r.TDX != nil {
		return r.TDX.Measurements
	}
	return nil
}
