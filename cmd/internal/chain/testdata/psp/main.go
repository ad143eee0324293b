// SPDX-License-Identifier: Apache-2.0

// Psp runs inside a test guest in place of AMD's secure processor: it signs the reports
// that the kernel's test provider asks for, with the keys in /tests/chip. Its arguments
// are what the guest was launched with: measurement and HOST_DATA, in hex.
package main

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
)

func main() {
	if err := serve(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "psp:", err)
		os.Exit(1)
	}
}

func serve(measurement, hostData string) error {
	signer, err := snptest.Load("/tests/chip")
	if err != nil {
		return err
	}
	signer.Params.Measurement, signer.Params.HostData = measurement, hostData
	f, err := os.OpenFile("/dev/testpsp", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for {
		var asked [evidence.ReportDataSize]byte
		if _, err := f.Read(asked[:]); err != nil {
			return err
		}
		report, err := signer.Report(asked)
		if err != nil {
			return err
		}
		table := certTable(
			entry{[16]byte{0x63, 0xda, 0x75, 0x8d, 0xe6, 0x64, 0x45, 0x64, 0xad, 0xc5, 0xf4, 0xb9, 0x3b, 0xe8, 0xac, 0xcd}, signer.VCEK.Raw},
			entry{[16]byte{0x4a, 0xb7, 0xb3, 0x79, 0xbb, 0xac, 0x4f, 0xe4, 0xa0, 0x2f, 0x05, 0xae, 0xf3, 0x27, 0xc7, 0x82}, signer.ASK.Raw},
			entry{[16]byte{0xc0, 0xb4, 0x06, 0xa4, 0xa8, 0x03, 0x49, 0x52, 0x97, 0x43, 0x3f, 0xb6, 0x01, 0x4c, 0xd0, 0xae}, signer.ARK.Raw},
		)
		if _, err := f.Write(append(report, table...)); err != nil {
			return err
		}
	}
}

// entry is one certificate of the table, by its GUID.
type entry struct {
	guid [16]byte
	der  []byte
}

// certTable lays certificates out as the host hands them to a guest (AMD publication
// 56421, GHCB specification, "SNP extended guest request"): GUID, offset and length of
// each, an entry of zeros, then the certificates.
func certTable(entries ...entry) []byte {
	const entrySize = 24
	var head, body []byte
	for _, e := range entries {
		head = append(head, e.guid[:]...)
		head = binary.LittleEndian.AppendUint32(head, uint32(entrySize*(len(entries)+1)+len(body)))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(e.der)))
		body = append(body, e.der...)
	}
	return append(append(head, make([]byte, entrySize)...), body...)
}
