// SPDX-License-Identifier: Apache-2.0

package measuretest

import "encoding/binary"

// TDVFSection is a section of TDVF metadata.
type TDVFSection struct {
	Offset, Raw      uint32
	Address, Size    uint64
	Kind, Attributes uint32
}

// TDVFSections are those that OVMF has: code that is measured, variables, a stack and
// hand-off blocks, for an image of TDVF.
func TDVFSections() []TDVFSection {
	return []TDVFSection{
		{0x1000, 0x2000, 0xffffe000, 0x2000, 0, 1},
		{0, 0x1000, 0xffffd000, 0x1000, 1, 0},
		{0, 0, 0x810000, 0x3000, 3, 0},
		{0, 0, 0x809000, 0x2000, 2, 0},
		{0, 0, 0x100000000, 0x1000, 4, 2},
	}
}

// TDVFMetadata is where the metadata is in an image of TDVF.
const TDVFMetadata = 0x3000 - 1024

// TDVF makes a firmware image of three pages with that metadata and a footer table.
func TDVF(sections ...TDVFSection) []byte {
	le := binary.LittleEndian
	image := make([]byte, 0x3000)
	for i := range 0x2800 {
		image[i] = byte(i>>8) ^ byte(i*7)
	}
	b := append([]byte(nil), "TDVF"...)
	b = le.AppendUint32(b, uint32(16+32*len(sections)))
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, uint32(len(sections)))
	for _, s := range sections {
		b = le.AppendUint32(b, s.Offset)
		b = le.AppendUint32(b, s.Raw)
		b = le.AppendUint64(b, s.Address)
		b = le.AppendUint64(b, s.Size)
		b = le.AppendUint32(b, s.Kind)
		b = le.AppendUint32(b, s.Attributes)
	}
	copy(image[TDVFMetadata:], b)
	// The footer, read backwards: its GUID, the length of the table, one entry.
	footer := []byte("\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d")
	entry := []byte("\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2")
	table := le.AppendUint32(nil, uint32(len(image)-TDVFMetadata))
	table = append(le.AppendUint16(table, 22), entry...)
	table = append(le.AppendUint16(table, 40), footer...)
	copy(image[len(image)-32-len(table):], table)
	return image
}
