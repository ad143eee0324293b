// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/casemate/casemate/verity"
)

// The GUID partition table, UEFI 2.10 section 5.3.
const (
	gptEntries     = 128
	gptEntrySize   = 128
	gptHeaderSize  = 92
	gptTableSector = gptEntries * gptEntrySize / sectorSize // sectors of the array
	gptRevision    = 0x00010000
	// gptReadOnly is attribute 60 of the discoverable partitions.
	gptReadOnly = 1 << 60
)

// Types of the discoverable partitions specification for x86-64, as they lie on the
// disk: the first three groups are little-endian.
const (
	// 4f68bce3-e8cd-4db1-96e7-fbcaf984b709
	typeRoot = "\xe3\xbc\x68\x4f\xcd\xe8\xb1\x4d\x96\xe7\xfb\xca\xf9\x84\xb7\x09"
	// 2c7357ed-ebd2-46d9-aec1-23d437ec2bf5
	typeRootHash = "\xed\x57\x73\x2c\xd2\xeb\xd9\x46\xae\xc1\x23\xd4\x37\xec\x2b\xf5"
)

// writeGPT writes the table at the start of a disk of size bytes and its copy at the
// end. As the discoverable partitions specification has it, the root's identifier is
// the first half of the root hash and the tree's the last; the disk's is the salt's
// start.
func writeGPT(w io.WriterAt, size int64, pin verity.Pin, extents []extent) error {
	if len(pin.RootHash) < 32 || len(pin.Salt) < 16 {
		return errors.New("identifiers of a gpt want a root hash of 32 bytes and a salt of 16")
	}
	array := make([]byte, gptEntries*gptEntrySize)
	entry(array, 0, typeRoot, pin.RootHash[:16], extents[0], "root")
	entry(array, 1, typeRootHash, pin.RootHash[len(pin.RootHash)-16:], extents[1], "root-verity")
	last := uint64(size/sectorSize) - 1
	copyTable := last - gptTableSector
	// Partitions lie behind the first megabyte: what the format allows from here on is theirs.
	usable := extent{2 + gptTableSector, copyTable - (2 + gptTableSector)}
	for _, part := range []struct {
		sector uint64
		bytes  []byte
	}{
		{0, bootRecord(typeProtects, []extent{{1, last}})},
		{1, gptHeader(1, last, 2, usable, pin.Salt[:16], array)},
		{2, array},
		{copyTable, array},
		{last, gptHeader(last, 1, copyTable, usable, pin.Salt[:16], array)},
	} {
		if _, err := w.WriteAt(part.bytes, int64(part.sector)*sectorSize); err != nil {
			return err
		}
	}
	return nil
}

func entry(array []byte, number int, kind string, id []byte, e extent, name string) {
	b := array[number*gptEntrySize:][:gptEntrySize]
	copy(b, kind)
	guid(b[16:32], id)
	binary.LittleEndian.PutUint64(b[32:], e.first)
	binary.LittleEndian.PutUint64(b[40:], e.last())
	binary.LittleEndian.PutUint64(b[48:], gptReadOnly)
	for i, c := range utf16.Encode([]rune(name)) {
		binary.LittleEndian.PutUint16(b[56+2*i:], c)
	}
}

// guid writes 16 bytes in the order in which their text would be read.
func guid(b, id []byte) {
	e := binary.LittleEndian
	e.PutUint32(b, binary.BigEndian.Uint32(id))
	e.PutUint16(b[4:], binary.BigEndian.Uint16(id[4:]))
	e.PutUint16(b[6:], binary.BigEndian.Uint16(id[6:]))
	copy(b[8:], id[8:16])
}

func gptHeader(self, other, array uint64, usable extent, disk, entries []byte) []byte {
	b := make([]byte, sectorSize)
	e := binary.LittleEndian
	copy(b, "EFI PART")
	e.PutUint32(b[8:], gptRevision)
	e.PutUint32(b[12:], gptHeaderSize)
	e.PutUint64(b[24:], self)
	e.PutUint64(b[32:], other)
	e.PutUint64(b[40:], usable.first)
	e.PutUint64(b[48:], usable.last())
	guid(b[56:72], disk)
	e.PutUint64(b[72:], array)
	e.PutUint32(b[80:], gptEntries)
	e.PutUint32(b[84:], gptEntrySize)
	e.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	e.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeaderSize]))
	return b
}
