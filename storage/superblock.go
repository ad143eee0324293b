// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"

	"github.com/casemate/casemate/storage/devmapper"
)

// superblockRoom is what dm-integrity keeps free for its superblock, and superblockSize what it uses, in bytes.
const (
	superblockRoom = 4096
	superblockSize = 64
)

// Fields of struct superblock in the kernel's drivers/md/dm-integrity.c, little-endian.
const (
	superblockMagic = "integrt\x00"

	offVersion   = 8  // 1 byte
	offTagSize   = 10 // 2 bytes
	offProvided  = 16 // 8 bytes, sectors
	offFlags     = 24 // 4 bytes
	offLog2Block = 28 // 1 byte, sectors in a block

	maxSuperblockVersion = 5
	flagFixedPadding     = 0x8
)

// readSuperblock checks what the device says about its tags and returns its sectors of data. It is the host's word
// and believed only so far: whatever the kernel finds when it reads the same bytes once more, a block
// passes only with the cipher's own tag for that place. The check names what is wrong before anything is mapped.
func readSuperblock(r io.ReaderAt, t table) (uint64, error) {
	b := make([]byte, superblockSize)
	if n, err := r.ReadAt(b, int64(t.offset)); n < len(b) {
		return 0, fmt.Errorf("reading the integrity superblock: %d bytes of %d: %w", n, len(b), err)
	}
	sectors, err := t.parseSuperblock(b)
	if err != nil {
		return 0, fmt.Errorf("reading the integrity superblock: %w", err)
	}
	return sectors, nil
}

func (t table) parseSuperblock(b []byte) (uint64, error) {
	e := binary.LittleEndian
	sectors := e.Uint64(b[offProvided:])
	switch {
	case string(b[:len(superblockMagic)]) != superblockMagic:
		return 0, fmt.Errorf("magic %x, want %x", b[:len(superblockMagic)], superblockMagic)
	case b[offVersion] == 0 || b[offVersion] > maxSuperblockVersion:
		return 0, fmt.Errorf("version %d, want 1 to %d", b[offVersion], maxSuperblockVersion)
	case int(e.Uint16(b[offTagSize:])) != t.cipher.TagSize():
		return 0, fmt.Errorf("tags of %d bytes, want %d", e.Uint16(b[offTagSize:]), t.cipher.TagSize())
	case int(b[offLog2Block]) != bits.Len(uint(t.sectorSize/devmapper.SectorSize))-1:
		return 0, fmt.Errorf("blocks of 2^%d sectors, want %d bytes", b[offLog2Block], t.sectorSize)
	// Among the others: tags to be recalculated, a bitmap of blocks whose tags are not to be believed, tags inside
	// the device's own sectors, a journal with a MAC.
	case e.Uint32(b[offFlags:])&^flagFixedPadding != 0:
		return 0, fmt.Errorf("flags %#x, want none but %#x", e.Uint32(b[offFlags:]), flagFixedPadding)
	}
	return sectors, t.checkProvided(sectors)
}
