// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/casemate/casemate/storage/devmapper"
)

// superblock is one as the kernel writes it for tbl, of so many sectors.
func superblock(tbl table, sectors uint64) []byte {
	b := make([]byte, superblockSize)
	copy(b, superblockMagic)
	b[offVersion] = 4
	binary.LittleEndian.PutUint16(b[offTagSize:], uint16(tbl.cipher.TagSize()))
	binary.LittleEndian.PutUint64(b[offProvided:], sectors)
	b[offFlags] = flagFixedPadding
	b[offLog2Block] = 3
	return b
}

var testTable = table{cipher: devmapper.AESXTSHMACSHA256, size: 4096 * devmapper.SectorSize, sectorSize: 4096}

// TestSuperblock: what a host may change in dm-integrity's superblock is named before anything is mapped.
func TestSuperblock(t *testing.T) {
	good := superblock(testTable, 2048)
	if n, err := readSuperblock(bytes.NewReader(good), testTable); err != nil || n != 2048 {
		t.Fatalf("got %d, %v", n, err)
	}
	at1M := testTable
	at1M.offset = 1 << 20
	if n, err := readSuperblock(bytes.NewReader(append(make([]byte, 1<<20), good...)), at1M); err != nil || n != 2048 {
		t.Errorf("at its offset: got %d, %v", n, err)
	}
	for _, tt := range []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"blank", func(b []byte) { clear(b) }, "magic"},
		{"version 0", func(b []byte) { b[offVersion] = 0 }, "version 0"},
		{"version 6, tags in the sectors", func(b []byte) { b[offVersion] = 6 }, "version 6"},
		{"shorter tags", func(b []byte) { b[offTagSize] = 4 }, "tags of 4 bytes"},
		{"tags longer by 64 KiB", func(b []byte) { b[offTagSize+1] = 1 }, "tags of 288 bytes"},
		{"smaller blocks", func(b []byte) { b[offLog2Block] = 0 }, "2^0 sectors"},
		{"MAC of the journal", func(b []byte) { b[offFlags] |= 1 }, "flags 0x9"},
		{"recalculating", func(b []byte) { b[offFlags] |= 2 }, "flags 0xa"},
		{"dirty bitmap", func(b []byte) { b[offFlags] |= 4 }, "flags 0xc"},
		{"inline", func(b []byte) { b[offFlags] |= 0x20 }, "flags 0x28"},
		{"unknown flag", func(b []byte) { b[offFlags+3] = 0x80 }, "flags 0x80000008"},
		{"no data", func(b []byte) { clear(b[offProvided:][:8]) }, "0 sectors"},
		{"more data than device", func(b []byte) { b[offProvided+7] = 0x80 }, "sectors of data in 4096"},
		{"data off the block size", func(b []byte) { b[offProvided]++ }, "2049 sectors"},
	} {
		b := bytes.Clone(good)
		tt.change(b)
		if _, err := readSuperblock(bytes.NewReader(b), testTable); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := readSuperblock(bytes.NewReader(good[:63]), testTable); err == nil {
		t.Error("a device that ends inside it: no error")
	}
}

func FuzzSuperblock(f *testing.F) {
	f.Add(superblock(testTable, 2048))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := readSuperblock(bytes.NewReader(b), testTable)
		if err == nil && (n == 0 || n >= 4096 || n%8 != 0) {
			t.Errorf("%d sectors accepted", n)
		}
	})
}
