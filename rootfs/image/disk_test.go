// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
)

// TestDiskHoldsParts reads the tables with code of their own and finds the root and
// its tree where they say.
func TestDiskHoldsParts(t *testing.T) {
	b := build(t, twice(t)[0])
	rootBytes, hashBytes := content(t, b.root), content(t, b.hash)
	e := binary.LittleEndian

	msdos := content(t, b.disk(t, MSDOS))
	if !bytes.Equal(msdos[510:512], []byte{0x55, 0xaa}) || !bytes.Equal(msdos[0x1b8:0x1bc], b.pin.RootHash[:4]) {
		t.Errorf("boot record %x", msdos[0x1b8:512])
	}
	for i, want := range [][]byte{rootBytes, hashBytes} {
		entry := msdos[446+16*i:]
		at := int(e.Uint32(entry[8:])) * 512
		if entry[4] != 0x83 || at%(1<<20) != 0 || !bytes.HasPrefix(msdos[at:], want) {
			t.Errorf("msdos: partition %d, kind %#x at %d, does not hold what it should", i+1, entry[4], at)
		}
		if end := at + int(e.Uint32(entry[12:]))*512; end > len(msdos) || end < at+len(want) {
			t.Errorf("msdos: partition %d ends at %d", i+1, end)
		}
	}
	if bytes.Count(msdos[478:510], []byte{0}) != 32 {
		t.Error("msdos: there is a third partition")
	}

	gpt := content(t, b.disk(t, GPT))
	for name, at := range map[string]int{"header": 512, "copy": len(gpt) - 512} {
		h := bytes.Clone(gpt[at : at+92])
		sum := e.Uint32(h[16:])
		e.PutUint32(h[16:], 0)
		array := gpt[e.Uint64(h[72:])*512:][:128*128]
		if string(h[:8]) != "EFI PART" || crc32.ChecksumIEEE(h) != sum || crc32.ChecksumIEEE(array) != e.Uint32(h[88:]) {
			t.Errorf("gpt %s: sums", name)
		}
		if int(e.Uint64(h[24:]))*512 != at || int(e.Uint64(h[32:]))*512 != len(gpt)-at {
			t.Errorf("gpt %s: it lies elsewhere", name)
		}
		for i, want := range [][]byte{rootBytes, hashBytes} {
			entry := array[128*i:]
			first, last := e.Uint64(entry[32:]), e.Uint64(entry[40:])
			if !bytes.HasPrefix(gpt[first*512:], want) || last > e.Uint64(h[48:]) || first < e.Uint64(h[40:]) {
				t.Errorf("gpt %s: partition %d from %d to %d", name, i+1, first, last)
			}
		}
	}
	if gpt[450] != 0xee {
		t.Error("gpt: no protective boot record")
	}
}

func TestDiskRefuses(t *testing.T) {
	b := build(t, twice(t)[0])
	root, hash := b.parts(t)
	short := b.pin
	short.RootHash = nil
	if _, err := WriteDisk(b.disk(t, MSDOS), MSDOS, root, hash, short); err == nil {
		t.Error("no root hash: accepted")
	}
	unsalted := b.pin
	unsalted.Salt = nil
	if _, err := WriteDisk(b.disk(t, MSDOS), GPT, root, hash, unsalted); err == nil {
		t.Error("gpt without a salt: accepted")
	}
	for name, root := range map[string]Part{
		"empty": {b.root, 0}, "odd": {b.root, 513}, "huge": {b.root, 1 << 41}, "two that are huge": {b.root, 1 << 40}, "longer than it is": {b.root, b.size + 4096},
	} {
		if _, err := WriteDisk(b.disk(t, MSDOS), MSDOS, root, hash, b.pin); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := WriteDisk(b.disk(t, MSDOS), "apm", root, hash, b.pin); err == nil {
		t.Error("an unknown table: accepted")
	}
}
