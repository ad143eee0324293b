// SPDX-License-Identifier: Apache-2.0

package measuretest

import (
	"encoding/binary"
	"slices"
)

const (
	alignment = 512
	// PEHeader is where the PE header is, SectionTable the first section's entry.
	PEHeader     = 64
	OptHeader    = PEHeader + 24
	SectionTable = OptHeader + 160
)

// Section is a section of a program.
type Section struct {
	Name    string
	Content []byte
}

// PE makes an EFI program for x86-64, PE32+ with six data directories, sections at
// multiples of 512 bytes and certificates, which may be nil, at the end.
func PE(certificates []byte, sections ...Section) []byte {
	headers := align(SectionTable + 40*len(sections))
	out := make([]byte, headers)
	copy(out, "MZ")
	le := binary.LittleEndian
	le.PutUint32(out[0x3c:], PEHeader)
	copy(out[PEHeader:], "PE\x00\x00")
	le.PutUint16(out[PEHeader+4:], 0x8664)
	le.PutUint16(out[PEHeader+6:], uint16(len(sections)))
	le.PutUint16(out[PEHeader+20:], SectionTable-OptHeader)
	le.PutUint16(out[OptHeader:], 0x20b)
	le.PutUint32(out[OptHeader+60:], uint32(headers))
	le.PutUint32(out[OptHeader+64:], 0xc0ffee) // checksum
	le.PutUint32(out[OptHeader+108:], 6)
	virtual := uint32(0x1000)
	for i, s := range sections {
		e := out[SectionTable+40*i:]
		copy(e[:8], s.Name)
		padded := align(len(s.Content))
		le.PutUint32(e[8:], uint32(len(s.Content)))
		le.PutUint32(e[12:], virtual)
		le.PutUint32(e[16:], uint32(padded))
		le.PutUint32(e[20:], uint32(len(out)))
		out = append(out, s.Content...)
		out = append(out, make([]byte, padded-len(s.Content))...)
		virtual += uint32(padded+0xfff) &^ 0xfff
	}
	if len(certificates) > 0 {
		le.PutUint32(out[OptHeader+144:], uint32(len(out)))
		le.PutUint32(out[OptHeader+148:], uint32(len(certificates)))
		out = append(out, certificates...)
	}
	return out
}

func align(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// UKI makes a unified kernel image with the mark of systemd-stub 252 and a kernel that
// is a PE with the text kernel. More sections follow.
func UKI(kernel, commandLine, initrd string, more ...Section) []byte {
	return PE(nil, slices.Concat([]Section{
		{".text", []byte("stub")},
		{".sdmagic", []byte("#### LoaderInfo: systemd-stub 252.39-1 ####\x00")},
		{".osrel", []byte("ID=test\n")},
		{".cmdline", []byte(commandLine)},
		{".linux", PE(nil, Section{".text", []byte(kernel)})},
		{".initrd", []byte(initrd)},
	}, more)...)
}
