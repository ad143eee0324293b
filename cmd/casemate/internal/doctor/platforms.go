// SPDX-License-Identifier: Apache-2.0

package doctor

// Proof is what stands for one part of a guest.
type Proof struct {
	// Part is firmware, kernel, agent or initdata.
	Part string `json:"part"`
	// By is where a relying party finds the part's measurement; it begins with "nothing"
	// where there is none that the hardware signs.
	By string `json:"proved_by"`
	// Signer is who signs that.
	Signer string `json:"signed_by"`
}

// Platform is one kind of machine.
type Platform struct {
	ID    string `json:"id"`
	Title string `json:"title"`
	// Served says whether this program makes evidence there and keybroker judges it.
	Served bool    `json:"served"`
	Proofs []Proof `json:"proofs"`
	// Note is what an owner has to know besides.
	Note string `json:"note"`
}

// Identities of the platforms.
const (
	QEMUSNP  = "qemu-snp"
	QEMUTDX  = "qemu-tdx"
	Azure    = "azure"
	GCPSNP   = "gcp-snp"
	GCPTDX   = "gcp-tdx"
	AWSSNP   = "aws-snp"
	NitroTPM = "aws-nitrotpm"
)

const (
	amd       = "AMD: the chip's VCEK or the provider's VLEK"
	intel     = "Intel: the platform's PCK, through the quoting enclave"
	likeAbove = "whoever signs for the kernel"
	inImage   = "the measured initrd or UKI: the agent lies in it, or in a verity root whose hash stands in it"
	unproved  = "nobody"
	ownRegion = "nothing at launch; a PCR that the agent extends itself, once and from zero"
)

// Platforms lists those that are known, in the order of docs/clouds.md.
func Platforms() []Platform {
	return []Platform{
		{
			ID: QEMUSNP, Title: "QEMU/KVM with SEV-SNP", Served: true,
			Proofs: []Proof{
				{"firmware", "the launch measurement: OVMF and the first state of the vCPUs", amd},
				{"kernel", "the launch measurement, with kernel-hashes=on and OVMF's AmdSev build: kernel, initrd, command line", amd},
				{"agent", inImage, likeAbove},
				{"initdata", "HOST_DATA, set at launch", amd},
			},
			Note: "Without kernel hashes a host boots any kernel under the same measurement: then kernel and agent are unproved.",
		},
		{
			ID: QEMUTDX, Title: "QEMU/KVM with TDX", Served: true,
			Proofs: []Proof{
				{"firmware", "MRTD for TDVF, RTMR0 for its configuration and the ACPI tables", intel},
				{"kernel", "RTMR1 and RTMR2 with the CCEL event log: boot loader, kernel, command line, initrd", intel},
				{"agent", inImage, likeAbove},
				{"initdata", "MRCONFIGID, set at launch", intel},
			},
			Note: "A registration that lists no RTMR values leaves kernel and agent unproved, and keybroker refuses it.",
		},
		{
			ID: Azure, Title: "Azure confidential VM (SNP or TDX below Microsoft's paravisor)", Served: true,
			Proofs: []Proof{
				{"firmware", "the hardware report for the paravisor, PCR 0 to 7 of the paravisor's vTPM for the UEFI", "AMD or Intel for the paravisor; for the PCRs the vTPM's key, which the report binds"},
				{"kernel", "PCR 4 for what the UEFI started, PCR 7 for Secure Boot's keys, PCR 11 for the parts of a UKI", "the vTPM's key, which the report binds"},
				{"agent", inImage, likeAbove},
				{"initdata", ownRegion, "the vTPM's key, which the report binds"},
			},
			Note: "There is no /dev/sev-guest and no /dev/tdx_guest: reports come through the vTPM. The paravisor is Microsoft's and part of what is trusted.",
		},
		{
			ID: GCPSNP, Title: "Google Cloud with SEV-SNP", Served: true,
			Proofs: []Proof{
				{"firmware", "the launch measurement, held against Google's signed launch endorsement", amd + "; Google for which value is right"},
				{"kernel", "nothing in the report; the vTPM's PCRs are kept by Google's host", "Google, not the hardware"},
				{"agent", "nothing in the report", unproved},
				{"initdata", "nothing: tenants have no documented way to set HOST_DATA", unproved},
			},
			Note: "keybroker releases nothing to a HOST_DATA of zeros: initdata cannot be pinned here.",
		},
		{
			ID: GCPTDX, Title: "Google Cloud with TDX", Served: true,
			Proofs: []Proof{
				{"firmware", "MRTD, held against Google's signed launch endorsement; RTMR0 for its configuration", intel + "; Google for which value is right"},
				{"kernel", "RTMR1 and RTMR2 with the CCEL event log", intel},
				{"agent", inImage, likeAbove},
				{"initdata", "nothing: tenants have no documented way to set MRCONFIGID", unproved},
			},
			Note: "keybroker releases nothing to an MRCONFIGID of zeros: initdata cannot be pinned here.",
		},
		{
			ID: AWSSNP, Title: "Amazon EC2 with SEV-SNP", Served: true,
			Proofs: []Proof{
				{"firmware", "the launch measurement: Amazon's build of OVMF, whose source it publishes", "AMD: a VLEK on shared hosts, the chip's VCEK on dedicated ones"},
				{"kernel", "nothing in the report; NitroTPM's PCRs are kept by Amazon's hypervisor", "Amazon, not the hardware"},
				{"agent", "nothing in the report", unproved},
				{"initdata", "nothing: tenants have no documented way to set HOST_DATA", unproved},
			},
			Note: "keybroker releases nothing to a HOST_DATA of zeros: initdata cannot be pinned here.",
		},
		{
			ID: NitroTPM, Title: "Amazon EC2 with NitroTPM and an attestable AMI", Served: false,
			Proofs: []Proof{
				{"firmware", "nothing: PCR 0 and PCR 1 are constants by Amazon's choice", "Amazon: the Nitro hypervisor signs the attestation document"},
				{"kernel", "PCR 4 and PCR 12 for the UKI and its command line, or PCR 7 for Secure Boot's keys", "Amazon: the Nitro hypervisor"},
				{"agent", inImage, likeAbove},
				{"initdata", ownRegion, "Amazon: the Nitro hypervisor"},
			},
			Note: "No hardware signs: Amazon is trusted with everything, memory included. Not served yet.",
		},
	}
}

// Find returns the platform of that identity.
func Find(id string) (Platform, bool) {
	for _, p := range Platforms() {
		if p.ID == id {
			return p, true
		}
	}
	return Platform{}, false
}
