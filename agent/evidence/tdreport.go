// SPDX-License-Identifier: Apache-2.0

package evidence

import "encoding/binary"

// TDReport is the body of a quote, Intel TDX DCAP Quoting Library API, "TD Quote Body":
// 584 bytes for TDX 1.0, 648 for TDX 1.5.
type TDReport struct{ raw []byte }

// TDAttributes are the attributes a guest was made with, Intel TDX module ABI,
// ATTRIBUTES.
type TDAttributes uint64

// Bits of TDAttributes.
const (
	tdUnderDebug    = 0xFF // bits 0 to 7: DEBUG and reserved, all make a guest untrusted
	tdDebug         = 1 << 0
	tdSEPTVEDisable = 1 << 28
	tdMigratable    = 1 << 29
)

// Debug reports whether the host may read the guest's state.
func (a TDAttributes) Debug() bool { return a&tdDebug != 0 }

// Untrusted returns the attributes of the TUD group, of which none may be set.
func (a TDAttributes) Untrusted() uint8 { return uint8(a & tdUnderDebug) }

// SEPTVEDisable reports whether a page the host took away stops the guest instead of
// raising an exception inside it.
func (a TDAttributes) SEPTVEDisable() bool { return a&tdSEPTVEDisable != 0 }

// Migratable reports whether a migration service TD may move the guest.
func (a TDAttributes) Migratable() bool { return a&tdMigratable != 0 }

// TCBSVN returns TEE_TCB_SVN: 16 component versions.
func (r TDReport) TCBSVN() []byte { return r.raw[0:16] }

// MRSeam returns the measurement of the TDX module, 48 bytes.
func (r TDReport) MRSeam() []byte { return r.raw[16:64] }

// MRSignerSeam returns who signed the TDX module, 48 bytes: zeros for Intel.
func (r TDReport) MRSignerSeam() []byte { return r.raw[64:112] }

// SeamAttributes returns the TDX module's attributes: zero for a production module.
func (r TDReport) SeamAttributes() uint64 { return binary.LittleEndian.Uint64(r.raw[112:]) }

// Attributes returns the guest's attributes.
func (r TDReport) Attributes() TDAttributes {
	return TDAttributes(binary.LittleEndian.Uint64(r.raw[120:]))
}

// XFAM returns the extended features that the guest may use.
func (r TDReport) XFAM() uint64 { return binary.LittleEndian.Uint64(r.raw[128:]) }

// MRTD returns the launch measurement, SHA-384.
func (r TDReport) MRTD() []byte { return r.raw[136:184] }

// MRConfigID returns what the host bound at launch, 48 bytes: the initdata digest.
func (r TDReport) MRConfigID() []byte { return r.raw[184:232] }

// MROwner returns the owner's identity, 48 bytes.
func (r TDReport) MROwner() []byte { return r.raw[232:280] }

// MROwnerConfig returns the owner's configuration, 48 bytes.
func (r TDReport) MROwnerConfig() []byte { return r.raw[280:328] }

// RTMR returns run-time register i, 0 to 3: SHA-384.
func (r TDReport) RTMR(i int) []byte {
	at := 328 + 48*i
	return r.raw[at : at+48]
}

// ReportData returns the 64 bytes that the guest asked to be quoted.
func (r TDReport) ReportData() []byte { return r.raw[520:584] }

// MRServiceTD returns the hash over bound service TDs, 48 bytes; nil in TDX 1.0.
func (r TDReport) MRServiceTD() []byte {
	if len(r.raw) < tdxBody15Size {
		return nil
	}
	return r.raw[600:648]
}

// QEReport is the SGX report of the quoting enclave, 384 bytes, Intel SDM volume 3D,
// REPORT structure.
type QEReport struct{ raw []byte }

// Raw returns the bytes that the PCK signs.
func (r QEReport) Raw() []byte { return r.raw }

// MiscSelect returns MISCSELECT as it is in memory, 4 bytes.
func (r QEReport) MiscSelect() []byte { return r.raw[16:20] }

// Attributes returns ATTRIBUTES as they are in memory, 16 bytes.
func (r QEReport) Attributes() []byte { return r.raw[48:64] }

// MRSigner returns who signed the enclave, SHA-256.
func (r QEReport) MRSigner() []byte { return r.raw[128:160] }

// ISVProdID returns the enclave's product number.
func (r QEReport) ISVProdID() uint16 { return binary.LittleEndian.Uint16(r.raw[256:]) }

// ISVSVN returns the enclave's security version.
func (r QEReport) ISVSVN() uint16 { return binary.LittleEndian.Uint16(r.raw[258:]) }

// ReportData returns 64 bytes: the digest of the attestation key, and zeros.
func (r QEReport) ReportData() []byte { return r.raw[320:384] }
