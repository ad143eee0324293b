// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/sha512"
	"fmt"
)

// ReportDataSize is the length of the field in SNP reports and TDX quotes.
const ReportDataSize = 64

// workloadDomain and workloadTag keep evidence that a workload asks for apart from
// evidence of a KBS handshake. A handshake hashes JSON, which starts with '{', and
// leaves bytes 48 to 63 zero; workload evidence can do neither, so what the guest
// hands to its workload is never accepted as a handshake of the guest itself.
const (
	workloadDomain = "casemate workload evidence v1\x00"
	workloadTag    = "casemate wkld v1"
)

// ReportData is what a report is bound to. It can only be made by the handshake
// (RuntimeData.ReportData) or for a workload (WorkloadReportData), so no caller can
// choose its bytes; RawReportData is the named exception, and HCLReport.Binding for who verifies. The zero value is bound to nothing and attesters refuse it.
type ReportData struct {
	bytes [ReportDataSize]byte
	size  int
}

// newReportData zero-pads digest, as every report with a 64-byte field carries it.
func newReportData(digest []byte) (ReportData, error) {
	var r ReportData
	if len(digest) == 0 || len(digest) > ReportDataSize {
		return r, fmt.Errorf("report data is %d bytes, want 1 to %d", len(digest), ReportDataSize)
	}
	r.size = copy(r.bytes[:], digest)
	return r, nil
}

// WorkloadReportData binds data that a workload chose, of any length:
// SHA-384("casemate workload evidence v1" ‖ 0x00 ‖ data) in bytes 0 to 47 and a
// constant non-zero tag in bytes 48 to 63.
func WorkloadReportData(data []byte) ReportData {
	h := sha512.New384()
	h.Write([]byte(workloadDomain))
	h.Write(data)
	var r ReportData
	n := copy(r.bytes[:], h.Sum(nil))
	r.size = n + copy(r.bytes[n:], workloadTag)
	return r
}

// RawReportData takes the bytes of the report field as the caller chose them, 1 to 64, as
// guest-components' GetEvidence does. Whoever may choose them can go through a handshake
// in the guest's name, with a key of his own: it is for guests whose measured
// configuration asks for that by name, and for no other use.
func RawReportData(data []byte) (ReportData, error) { return newReportData(data) }

// IsZero reports whether r is bound to nothing.
func (r ReportData) IsZero() bool { return r.size == 0 }

// Digest returns a copy without padding: 32, 48 or 64 bytes for a handshake, 64
// for a workload, none for the zero value. Evidence that is compared unpadded
// (sample, vTPM quotes) carries this.
func (r ReportData) Digest() []byte {
	return append([]byte(nil), r.bytes[:r.size]...)
}

// Bytes32 returns the first 32 bytes of the digest, which is what a TPM's qualifying data
// carries: Trustee's tpm attester and verifier cut there, and TPM2B_DATA need not have
// room for 64 bytes. It binds as fully as the whole: who wants another nonce or TEE key
// behind the same 32 bytes must find a second preimage of SHA-384 cut to 256 bits, which
// is as hard as one of SHA-256. The tag of workload evidence is cut off; the two domains
// stay apart because no handshake hashes text that starts with the domain's.
func (r ReportData) Bytes32() [32]byte { return [32]byte(r.bytes[:32]) }

// Bytes64 returns the digest zero-padded at its end to 64 bytes.
func (r ReportData) Bytes64() [ReportDataSize]byte { return r.bytes }
