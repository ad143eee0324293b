// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/binary"
	"fmt"
)

// Offsets of ATTESTATION_REPORT, AMD publication 56860, table "ATTESTATION_REPORT
// Structure". Integers are little-endian.
const (
	SNPReportSize = 0x4A0
	SNPSignedSize = 0x2A0 // the signature covers bytes 0 to 0x29F

	snpVersion      = 0x000
	snpGuestSVN     = 0x004
	snpPolicy       = 0x008
	snpFamilyID     = 0x010
	snpImageID      = 0x020
	snpVMPL         = 0x030
	snpSigAlgo      = 0x034
	snpCurrentTCB   = 0x038
	snpPlatformInfo = 0x040
	snpKeyInfo      = 0x048
	snpReportData   = 0x050
	snpMeasurement  = 0x090
	snpHostData     = 0x0C0
	snpIDKeyDigest  = 0x0E0
	snpAuthorDigest = 0x110
	snpReportID     = 0x140
	snpReportIDMA   = 0x160
	snpReportedTCB  = 0x180
	snpFamily       = 0x188
	snpModel        = 0x189
	snpStepping     = 0x18A
	snpChipID       = 0x1A0
	snpCommittedTCB = 0x1E0
	snpCurrent      = 0x1E8
	snpCommitted    = 0x1EC
	snpLaunchTCB    = 0x1F0
	snpLaunchMit    = 0x1F8
	snpCurrentMit   = 0x200
	snpSigR         = 0x2A0
	snpSigS         = 0x2E8
	snpSigEnd       = 0x330

	snpSigPart = 72 // one number of the ECDSA P-384 signature, little-endian
)

// Report versions. Version 3 added the CPU's family, model and stepping, version 5
// the mitigation vectors; what comes after 5 is not known and refused.
const (
	minSNPVersion = 2
	cpuidVersion  = 3
	mitVersion    = 5
	maxSNPVersion = 5
)

// SNPProduct is a family of processors with one layout of TCB_VERSION.
type SNPProduct string

// The products, named as AMD's key distribution service names them.
const (
	Milan SNPProduct = "Milan"
	Genoa SNPProduct = "Genoa" // and Siena and Bergamo
	Turin SNPProduct = "Turin"
)

// SNPReport is a report whose every non-zero byte has a place in the JSON form. The
// signature is not verified. Its zero value is not a report.
type SNPReport struct {
	raw     [SNPReportSize]byte
	product SNPProduct
}

// ParseSNPReport takes exactly SNPReportSize bytes. It refuses versions other than 2
// to 5, unknown processors, and non-zero reserved bytes: the JSON form drops those,
// so a report that has them could not be rebuilt with a valid signature.
func ParseSNPReport(raw []byte) (SNPReport, error) {
	var r SNPReport
	if len(raw) != SNPReportSize {
		return r, fmt.Errorf("parsing SNP report: got %d bytes, want %d", len(raw), SNPReportSize)
	}
	copy(r.raw[:], raw)
	product, err := snpProduct(r.Version(), r.raw[snpFamily], r.raw[snpModel])
	if err != nil {
		return SNPReport{}, fmt.Errorf("parsing SNP report: %w", err)
	}
	r.product = product
	for _, span := range r.reserved() {
		for at := span[0]; at < span[1]; at++ {
			if r.raw[at] != 0 {
				return SNPReport{}, fmt.Errorf("parsing SNP report: reserved byte %#x is not zero", at)
			}
		}
	}
	return r, nil
}

// snpProduct derives the product from what the report says of its processor. Version
// 2 says nothing and predates Turin, so Milan stands there for the older layout.
func snpProduct(version uint32, family, model byte) (SNPProduct, error) {
	if version < minSNPVersion || version > maxSNPVersion {
		return "", fmt.Errorf("report version is %d, want %d to %d", version, minSNPVersion, maxSNPVersion)
	}
	switch {
	case version < cpuidVersion:
		return Milan, nil
	case family == 0x19 && model <= 0x0F:
		return Milan, nil
	case family == 0x19 && (model >= 0x10 && model <= 0x1F || model >= 0xA0 && model <= 0xAF):
		return Genoa, nil
	case family == 0x1A && model <= 0x11:
		return Turin, nil
	}
	return "", fmt.Errorf("unknown processor family %#x model %#x", family, model)
}

// reserved lists the spans [from, to) that must be zero in this report.
func (r *SNPReport) reserved() [][2]int {
	afterCPUID, afterMit := snpFamily, snpLaunchMit
	if r.Version() >= cpuidVersion {
		afterCPUID = snpStepping + 1
	}
	if r.Version() >= mitVersion {
		afterMit = snpCurrentMit + 8
	}
	spans := [][2]int{
		{snpKeyInfo + 4, snpReportData},
		{afterCPUID, snpChipID},
		{snpCurrent + 3, snpCommitted},
		{snpCommitted + 3, snpLaunchTCB},
		{afterMit, snpSigR},
		{snpSigEnd, SNPReportSize},
	}
	lo, hi := 2, 6 // Milan, Genoa: bootloader, tee, 4 reserved, snp, microcode
	if r.product == Turin {
		lo, hi = 4, 7 // fmc, bootloader, tee, snp, 3 reserved, microcode
	}
	for _, tcb := range []int{snpCurrentTCB, snpReportedTCB, snpCommittedTCB, snpLaunchTCB} {
		spans = append(spans, [2]int{tcb + lo, tcb + hi})
	}
	return spans
}

// SNPTCB is a TCB_VERSION taken apart.
type SNPTCB struct {
	FMC        uint8 // security version of the FMC, Turin only, else 0
	Bootloader uint8
	TEE        uint8
	SNP        uint8
	Microcode  uint8
}

func (r *SNPReport) tcb(at int) SNPTCB {
	b := r.raw[at : at+8]
	if r.product == Turin {
		return SNPTCB{FMC: b[0], Bootloader: b[1], TEE: b[2], SNP: b[3], Microcode: b[7]}
	}
	return SNPTCB{Bootloader: b[0], TEE: b[1], SNP: b[6], Microcode: b[7]}
}

func (r *SNPReport) setTCB(at int, t SNPTCB) {
	b := r.raw[at : at+8]
	if r.product == Turin {
		b[0], b[1], b[2], b[3], b[7] = t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode
		return
	}
	b[0], b[1], b[6], b[7] = t.Bootloader, t.TEE, t.SNP, t.Microcode
}

func (r *SNPReport) u32(at int) uint32 { return binary.LittleEndian.Uint32(r.raw[at:]) }
func (r *SNPReport) u64(at int) uint64 { return binary.LittleEndian.Uint64(r.raw[at:]) }

func (r *SNPReport) copyOf(at, size int) []byte {
	return append([]byte(nil), r.raw[at:at+size]...)
}

// Raw returns a copy of the whole report, SNPReportSize bytes.
func (r *SNPReport) Raw() []byte { return r.copyOf(0, SNPReportSize) }

// Signed returns a copy of the bytes under the signature, SNPSignedSize of them.
func (r *SNPReport) Signed() []byte { return r.copyOf(0, SNPSignedSize) }

// Product returns the processor family; for version 2 reports, which do not name
// their processor, it is Milan whatever the machine was.
func (r *SNPReport) Product() SNPProduct { return r.product }

// Version returns the report version, 2 to 5.
func (r *SNPReport) Version() uint32 { return r.u32(snpVersion) }

// GuestSVN returns the security version of the guest from its ID block.
func (r *SNPReport) GuestSVN() uint32 { return r.u32(snpGuestSVN) }

// Policy returns the guest policy.
func (r *SNPReport) Policy() SNPPolicy { return SNPPolicy(r.u64(snpPolicy)) }

// VMPL returns the privilege level that asked for the report.
func (r *SNPReport) VMPL() uint32 { return r.u32(snpVMPL) }

// SignatureAlgorithm returns 1 for ECDSA P-384 with SHA-384.
func (r *SNPReport) SignatureAlgorithm() uint32 { return r.u32(snpSigAlgo) }

// PlatformInfo returns the PLATFORM_INFO bits: 0 SMT, 1 TSME, 2 ECC, …
func (r *SNPReport) PlatformInfo() uint64 { return r.u64(snpPlatformInfo) }

// KeyInfo returns the bits at 0x48: 0 author key, 1 chip id masked, 2 to 4 signing key.
func (r *SNPReport) KeyInfo() uint32 { return r.u32(snpKeyInfo) }

// FamilyID, ImageID, ReportID, ReportIDMA, IDKeyDigest and AuthorKeyDigest return
// copies of 16, 16, 32, 32, 48 and 48 bytes.
func (r *SNPReport) FamilyID() []byte        { return r.copyOf(snpFamilyID, 16) }
func (r *SNPReport) ImageID() []byte         { return r.copyOf(snpImageID, 16) }
func (r *SNPReport) ReportID() []byte        { return r.copyOf(snpReportID, 32) }
func (r *SNPReport) ReportIDMA() []byte      { return r.copyOf(snpReportIDMA, 32) }
func (r *SNPReport) IDKeyDigest() []byte     { return r.copyOf(snpIDKeyDigest, 48) }
func (r *SNPReport) AuthorKeyDigest() []byte { return r.copyOf(snpAuthorDigest, 48) }

// ReportData returns a copy of the 64 bytes the report is bound to.
func (r *SNPReport) ReportData() []byte { return r.copyOf(snpReportData, ReportDataSize) }

// Measurement returns a copy of the 48-byte launch measurement.
func (r *SNPReport) Measurement() []byte { return r.copyOf(snpMeasurement, 48) }

// HostData returns a copy of the 32 bytes that the host gave at launch.
func (r *SNPReport) HostData() []byte { return r.copyOf(snpHostData, 32) }

// ChipID returns a copy of the 64-byte chip id; Turin uses the first 8.
func (r *SNPReport) ChipID() []byte { return r.copyOf(snpChipID, 64) }

// CurrentTCB, ReportedTCB, CommittedTCB and LaunchTCB return the four TCB versions.
// The signing key's certificate is for ReportedTCB.
func (r *SNPReport) CurrentTCB() SNPTCB   { return r.tcb(snpCurrentTCB) }
func (r *SNPReport) ReportedTCB() SNPTCB  { return r.tcb(snpReportedTCB) }
func (r *SNPReport) CommittedTCB() SNPTCB { return r.tcb(snpCommittedTCB) }
func (r *SNPReport) LaunchTCB() SNPTCB    { return r.tcb(snpLaunchTCB) }

// CPU returns family, model and stepping; ok is false for version 2.
func (r *SNPReport) CPU() (family, model, stepping uint8, ok bool) {
	return r.raw[snpFamily], r.raw[snpModel], r.raw[snpStepping], r.Version() >= cpuidVersion
}

// SignatureRS returns copies of R and S, 72 bytes each, little-endian.
func (r *SNPReport) SignatureRS() (rLE, sLE []byte) {
	return r.copyOf(snpSigR, snpSigPart), r.copyOf(snpSigS, snpSigPart)
}

// SNPPolicy is the guest policy of AMD 56860, table "Guest Policy".
type SNPPolicy uint64

// ABIMinor and ABIMajor return the oldest firmware ABI that may run the guest.
func (p SNPPolicy) ABIMinor() uint8 { return uint8(p) }
func (p SNPPolicy) ABIMajor() uint8 { return uint8(p >> 8) }

// SMT reports whether simultaneous multithreading is allowed (bit 16).
func (p SNPPolicy) SMT() bool { return p>>16&1 == 1 }

// MigrateMA reports whether a migration agent is allowed (bit 18).
func (p SNPPolicy) MigrateMA() bool { return p>>18&1 == 1 }

// Debug reports whether the host may read the guest (bit 19).
func (p SNPPolicy) Debug() bool { return p>>19&1 == 1 }

// SingleSocket reports whether the guest is bound to one socket (bit 20).
func (p SNPPolicy) SingleSocket() bool { return p>>20&1 == 1 }
