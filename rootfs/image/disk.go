// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/casemate/casemate/verity"
)

// Table is how a disk says where its partitions are.
type Table string

// Kata's image builder writes msdos; systemd's tools and firmware want gpt.
const (
	MSDOS Table = "msdos"
	GPT   Table = "gpt"
)

const (
	sectorSize = 512
	alignment  = 1 << 20 // of partitions, in bytes
	maxDisk    = 1 << 40 // bytes: sector numbers of both tables fit
)

// Part is the content of a partition.
type Part struct {
	Content io.ReaderAt
	Size    int64 // bytes
}

// extent is where a partition lies, in sectors.
type extent struct{ first, count uint64 }

func (e extent) last() uint64 { return e.first + e.count - 1 }

// WriteDisk writes a raw disk of two partitions to w, which must be empty: the root,
// then its hash tree. Identifiers that such a table has are taken from the pin. It
// returns the disk's size in bytes.
func WriteDisk(w io.WriterAt, table Table, root, hash Part, pin verity.Pin) (int64, error) {
	if err := pin.Validate(); err != nil {
		return 0, fmt.Errorf("writing the disk: %w", err)
	}
	parts := []Part{root, hash}
	var at int64 = alignment
	var extents []extent
	for i, p := range parts {
		if p.Size <= 0 || p.Size%sectorSize != 0 || p.Size > maxDisk {
			return 0, fmt.Errorf("writing the disk: partition %d of %d bytes", i+1, p.Size)
		}
		extents = append(extents, extent{uint64(at / sectorSize), uint64(roundUp(p.Size, alignment) / sectorSize)})
		at += roundUp(p.Size, alignment)
	}
	if at > maxDisk {
		return 0, fmt.Errorf("writing the disk: %d bytes, want at most %d", at, int64(maxDisk))
	}
	size := at
	if table == GPT {
		size += alignment // for the table's copy
	}
	_, err := w.WriteAt([]byte{0}, size-1) // the last partition may be shorter than its place
	for i := 0; i < len(parts) && err == nil; i++ {
		err = copyPart(w, parts[i], extents[i])
	}
	if err == nil {
		err = writeTable(w, table, size, pin, extents)
	}
	if err != nil {
		return 0, fmt.Errorf("writing the disk: %w", err)
	}
	return size, nil
}

func writeTable(w io.WriterAt, table Table, size int64, pin verity.Pin, extents []extent) error {
	switch table {
	case MSDOS:
		record := bootRecord(typeLinux, extents)
		copy(record[mbrIdentifier:mbrIdentifier+4], pin.RootHash)
		_, err := w.WriteAt(record, 0)
		return err
	case GPT:
		return writeGPT(w, size, pin, extents)
	}
	return fmt.Errorf("partition table: want msdos or gpt, got %q", table)
}

func copyPart(w io.WriterAt, p Part, e extent) error {
	out := io.NewOffsetWriter(w, int64(e.first)*sectorSize)
	n, err := io.Copy(out, io.NewSectionReader(p.Content, 0, p.Size))
	if err == nil && n != p.Size {
		err = fmt.Errorf("got %d bytes of a partition, want %d", n, p.Size)
	}
	return err
}

// Offsets and values of the master boot record.
const (
	mbrIdentifier = 0x1b8
	mbrEntries    = 0x1be
	mbrEntrySize  = 16
	mbrSignature  = 0x1fe
	typeLinux     = 0x83
	typeProtects  = 0xee // a GPT
)

// bootRecord says where partitions are, in sectors. Cylinders and heads say that
// they are not used.
func bootRecord(kind byte, extents []extent) []byte {
	b := make([]byte, sectorSize)
	for i, e := range extents {
		entry := b[mbrEntries+i*mbrEntrySize:][:mbrEntrySize]
		copy(entry[1:], "\xfe\xff\xff")
		entry[4] = kind
		copy(entry[5:], "\xfe\xff\xff")
		binary.LittleEndian.PutUint32(entry[8:], uint32(min(e.first, 1<<32-1)))
		binary.LittleEndian.PutUint32(entry[12:], uint32(min(e.count, 1<<32-1)))
	}
	copy(b[mbrSignature:], "\x55\xaa")
	return b
}
