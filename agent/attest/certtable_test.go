// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/uuid"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	guidVCEK = abi.VcekGUID
	guidASK  = abi.AskGUID
	guidARK  = abi.ArkGUID
)

type entry struct {
	guid string
	cert []byte
}

// certTable writes a table with AMD's library, which is not the code under test.
func certTable(entries ...entry) []byte {
	var table abi.CertTable
	for _, e := range entries {
		table.Entries = append(table.Entries, abi.CertTableEntry{GUID: uuid.MustParse(e.guid), RawCert: e.cert})
	}
	return table.Marshal()
}

// rawTable writes entries of any offset and length, and an end.
func rawTable(size int, ends bool, spans ...[2]uint32) []byte {
	out := make([]byte, size)
	for i, s := range spans {
		at := i * certEntrySize
		guid, _ := hex.DecodeString(strings.ReplaceAll(guidVCEK, "-", ""))
		copy(out[at:], guid)
		binary.LittleEndian.PutUint32(out[at+16:], s[0])
		binary.LittleEndian.PutUint32(out[at+20:], s[1])
	}
	if !ends {
		out = out[:len(spans)*certEntrySize]
	}
	return out
}

func TestCertTable(t *testing.T) {
	const other = "ecae0c0f-9502-43b1-afa2-0ae2e0d565b6"
	table := certTable(entry{guidVCEK, []byte("vcek")}, entry{guidARK, []byte("ark")}, entry{guidASK, []byte("ask")},
		entry{abi.VlekGUID, []byte("vlek")}, entry{other, []byte("other")})
	table = append(table, make([]byte, 4096-len(table))...) // the host's pages end in zeros
	certs, err := parseCertTable(table)
	if err != nil {
		t.Fatal(err)
	}
	want := []evidence.SNPCert{
		{Type: evidence.SNPCertVCEK, DER: []byte("vcek")}, {Type: evidence.SNPCertARK, DER: []byte("ark")},
		{Type: evidence.SNPCertASK, DER: []byte("ask")}, {Type: evidence.SNPCertVLEK, DER: []byte("vlek")},
		{Type: evidence.SNPCertOther, GUID: other, DER: []byte("other")},
	}
	if len(certs) != len(want) {
		t.Fatalf("got %d certificates, want %d", len(certs), len(want))
	}
	for i := range want {
		if certs[i].Type != want[i].Type || certs[i].GUID != want[i].GUID || !bytes.Equal(certs[i].DER, want[i].DER) {
			t.Errorf("certificate %d is %+v, want %+v", i, certs[i], want[i])
		}
	}
}

func TestCertTableRefuses(t *testing.T) {
	for _, tc := range []struct {
		name  string
		table []byte
		want  string
	}{
		{"one byte", []byte{0}, "no end after 0 entries"},
		{"no end", rawTable(512, false, [2]uint32{24, 8}, [2]uint32{24, 8}), "no end after 2 entries"},
		{"end cut short", rawTable(40, true, [2]uint32{0, 40}), "no end after 1 entries"},
		{"beyond the end", rawTable(512, true, [2]uint32{500, 13}), "covers bytes 500 to 513 of 512"},
		{"sum wraps in 32 bits", rawTable(512, true, [2]uint32{0xFFFFFFF0, 0x20}), "covers bytes 4294967280"},
		{"length of 4 GiB", rawTable(512, true, [2]uint32{48, 0xFFFFFFFF}), "covers bytes 48 to 4294967343"},
		{"empty certificate", rawTable(512, true, [2]uint32{48, 0}), "covers bytes 48 to 48"},
		{"inside the entries", rawTable(512, true, [2]uint32{47, 8}), "inside the 48 bytes"},
		{"too big", make([]byte, maxCertTable+1), "at most 16384"},
	} {
		if certs, err := parseCertTable(tc.table); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %d certificates, error %v, want %q", tc.name, len(certs), err, tc.want)
		}
	}
}

func FuzzParseCertTable(f *testing.F) {
	f.Add(certTable(entry{guidVCEK, []byte("vcek")}, entry{guidASK, []byte("ask")}))
	f.Add(rawTable(512, true, [2]uint32{48, 4}, [2]uint32{100, 4}))
	f.Fuzz(func(t *testing.T, table []byte) {
		certs, err := parseCertTable(table)
		if err != nil {
			return
		}
		for _, c := range certs {
			if len(c.DER) == 0 || !bytes.Contains(table, c.DER) {
				t.Fatalf("certificate is not part of the table: %+v", c)
			}
		}
	})
}
