// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	guidSize      = 16
	certEntrySize = guidSize + 4 + 4

	// maxCertTable is what Linux reserves for the host's answer (SEV_FW_BLOB_MAX_SIZE).
	maxCertTable = 16 << 10
)

// certTypes maps the GUIDs of AMD publication 56421, "Guest Hypervisor Communication
// Block Standardization", table of certificate GUIDs, to the names that a KBS reads.
func certTypes() map[string]evidence.SNPCertType {
	return map[string]evidence.SNPCertType{
		"63da758d-e664-4564-adc5-f4b93be8accd": evidence.SNPCertVCEK,
		"a8074bc2-a25a-483e-aae6-39c045a0b8a1": evidence.SNPCertVLEK,
		"4ab7b379-bbac-4fe4-a02f-05aef327c782": evidence.SNPCertASK,
		"c0b406a4-a803-4952-9743-3fb6014cd0ae": evidence.SNPCertARK,
		"92f81bc3-5811-4d3d-97ff-d19f88dc67ea": evidence.SNPCertCRL,
	}
}

// parseCertTable reads the table of (GUID, offset, length) entries, ended by an entry
// of zeros, and the certificates behind it. The host writes all of it. Nothing, or a
// table whose first entry is the end, gives nil. Other GUIDs are kept as they are.
func parseCertTable(table []byte) ([]evidence.SNPCert, error) {
	if len(table) > maxCertTable {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", len(table), maxCertTable)
	}
	if len(table) == 0 {
		return nil, nil
	}
	var certs []evidence.SNPCert
	types := certTypes()
	for at := 0; ; at += certEntrySize {
		if len(table)-at < certEntrySize {
			return nil, fmt.Errorf("no end after %d entries, %d bytes left, want %d", len(certs), len(table)-at, certEntrySize)
		}
		entry := table[at : at+certEntrySize]
		if len(bytes.Trim(entry, "\x00")) == 0 {
			return certs, checkNotInHeader(certs, table, at+certEntrySize)
		}
		// 64-bit arithmetic: the sum of two hostile 32-bit numbers must not wrap.
		offset := uint64(binary.LittleEndian.Uint32(entry[guidSize:]))
		length := uint64(binary.LittleEndian.Uint32(entry[guidSize+4:]))
		if length == 0 || offset+length > uint64(len(table)) {
			return nil, fmt.Errorf("entry %d covers bytes %d to %d of %d", len(certs), offset, offset+length, len(table))
		}
		guid := guidText([guidSize]byte(entry))
		cert := evidence.SNPCert{Type: types[guid], DER: bytes.Clone(table[offset : offset+length])}
		if cert.Type == "" {
			cert.Type, cert.GUID = evidence.SNPCertOther, guid
		}
		certs = append(certs, cert)
	}
}

// checkNotInHeader refuses certificates that lie over the entries, which ends at
// headerSize: such a table was not written by the firmware interface.
func checkNotInHeader(certs []evidence.SNPCert, table []byte, headerSize int) error {
	for i := range certs {
		offset := binary.LittleEndian.Uint32(table[i*certEntrySize+guidSize:])
		if uint64(offset) < uint64(headerSize) {
			return fmt.Errorf("entry %d starts at byte %d, inside the %d bytes of entries", i, offset, headerSize)
		}
	}
	return nil
}

// guidText prints the bytes in order: the table stores GUIDs big-endian, RFC 4122.
func guidText(g [guidSize]byte) string {
	h := hex.EncodeToString(g[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
