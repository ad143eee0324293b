// SPDX-License-Identifier: Apache-2.0

package measuretest

import (
	"bytes"
	"encoding/binary"

	"github.com/ulikunitz/xz/lzma"
)

// Two GUIDs in memory order: of volumes with files, and of packed sections.
const (
	guidFiles = "\x78\xe5\x8c\x8c\x3d\x8a\x1c\x4f\x99\x35\x89\x61\x85\xc3\x2d\xd3"
	guidLZMA  = "\x98\x58\x4e\xee\x14\x39\x59\x42\x9d\x6e\xdc\x7b\xd7\x94\x03\xcf"
)

// Volume makes a firmware volume whose content begins behind its header.
func Volume(content []byte) []byte {
	const header = 72
	le := binary.LittleEndian
	b := make([]byte, header, header+len(content))
	copy(b[16:], guidFiles)
	le.PutUint64(b[32:], uint64(header+len(content)))
	copy(b[40:], "_FVH")
	le.PutUint16(b[48:], header)
	b[55] = 2
	var sum uint16
	for i := 0; i < header; i += 2 {
		sum -= le.Uint16(b[i:])
	}
	le.PutUint16(b[50:], sum)
	return append(b, content...)
}

// VolumeSection makes a section of a type, padded to four bytes.
func VolumeSection(kind byte, content []byte) []byte {
	size := 4 + len(content)
	b := append([]byte{byte(size), byte(size >> 8), byte(size >> 16), kind}, content...)
	return append(b, make([]byte, -len(b)&3)...)
}

// VolumeFile makes a file of a type, padded to eight bytes.
func VolumeFile(kind byte, content []byte) []byte {
	size := 24 + len(content)
	b := make([]byte, 24, size+8)
	b[18] = kind
	b[20], b[21], b[22] = byte(size), byte(size>>8), byte(size>>16)
	b = append(b, content...)
	return append(b, make([]byte, -len(b)&7)...)
}

// Packed makes a section that is packed with LZMA.
func Packed(content []byte) []byte {
	var b bytes.Buffer
	w, err := lzma.WriterConfig{SizeInHeader: true, Size: int64(len(content))}.NewWriter(&b)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic("measuretest: packing in memory: " + err.Error())
	}
	return PackedAs(b.Bytes())
}

// PackedAs makes such a section of bytes as they are.
func PackedAs(data []byte) []byte {
	return VolumeSection(2, append([]byte(guidLZMA+"\x18\x00\x01\x00"), data...))
}

// OVMF makes an image as OVMF's code: two volumes packed in the first one, and the
// volume with the reset vector behind it.
func OVMF(pei, dxe string) []byte {
	unpacked := VolumeSection(0x19, make([]byte, 8))
	unpacked = append(unpacked, VolumeSection(0x17, Volume([]byte(pei)))...)
	unpacked = append(unpacked, VolumeSection(0x17, Volume([]byte(dxe)))...)
	return append(OVMFOf(Packed(unpacked)), Volume([]byte("reset vector"))...)
}

// OVMFOf makes a volume with one file of these sections, and free space.
func OVMFOf(sections []byte) []byte {
	files := append(VolumeFile(0xf0, []byte("padding")), VolumeFile(0x0b, sections)...)
	return Volume(append(files, bytes.Repeat([]byte{0xff}, 64)...))
}
