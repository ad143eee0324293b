// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// SuperblockSize is the length of a superblock in bytes.
const SuperblockSize = 512

// Offsets in the superblock; integers are little-endian (cryptsetup,
// lib/verity/verity.c, struct verity_sb).
const (
	sbVersion       = 8
	sbHashType      = 12
	sbUUID          = 16
	sbAlgorithm     = 32
	sbDataBlockSize = 64
	sbHashBlockSize = 68
	sbDataBlocks    = 72
	sbSaltSize      = 80
	sbSalt          = 88
	sbEnd           = sbSalt + MaxSalt
)

const (
	sbSignature     = "verity\x00\x00"
	sbVersionNumber = 1
)

// Superblock is what cryptsetup writes before a tree. Params.HashOffset is that of
// the first hash block behind a superblock at the device's start.
type Superblock struct {
	UUID [16]byte
	Params
}

// TreeOffset is where a tree begins behind a superblock at the device's start, in bytes.
func TreeOffset(hashBlockSize int) uint64 {
	return uint64(max(SuperblockSize, hashBlockSize)) // both are powers of two
}

// ParseSuperblock reads the first SuperblockSize bytes of a hash device, which are
// hostile: a value that Params does not allow, and a byte set where none belongs,
// is an error.
func ParseSuperblock(b []byte) (Superblock, error) {
	var s Superblock
	if len(b) < SuperblockSize {
		return s, fmt.Errorf("verity superblock of %d bytes: want %d", len(b), SuperblockSize)
	}
	b = b[:SuperblockSize]
	if string(b[:sbVersion]) != sbSignature {
		return s, fmt.Errorf("verity superblock: no signature at its start, found % x", b[:sbVersion])
	}
	if v := binary.LittleEndian.Uint32(b[sbVersion:]); v != sbVersionNumber {
		return s, fmt.Errorf("verity superblock version %d: want %d", v, sbVersionNumber)
	}
	name, rest, ended := bytes.Cut(b[sbAlgorithm:sbDataBlockSize], []byte{0})
	saltSize := int(binary.LittleEndian.Uint16(b[sbSaltSize:]))
	switch {
	case !ended:
		return s, fmt.Errorf("verity superblock: the algorithm's name has no end")
	case saltSize > MaxSalt:
		return s, fmt.Errorf("verity superblock: salt of %d bytes, want at most %d", saltSize, MaxSalt)
	case !zero(rest), !zero(b[sbSaltSize+2 : sbSalt]), !zero(b[sbSalt+saltSize : sbEnd]), !zero(b[sbEnd:]):
		return s, fmt.Errorf("verity superblock: bytes set in its padding")
	}
	copy(s.UUID[:], b[sbUUID:])
	s.Params = Params{
		HashType:      int(binary.LittleEndian.Uint32(b[sbHashType:])),
		Algorithm:     string(name),
		Salt:          bytes.Clone(b[sbSalt : sbSalt+saltSize]),
		DataBlockSize: int(binary.LittleEndian.Uint32(b[sbDataBlockSize:])),
		HashBlockSize: int(binary.LittleEndian.Uint32(b[sbHashBlockSize:])),
		DataBlocks:    binary.LittleEndian.Uint64(b[sbDataBlocks:]),
	}
	if validBlock(s.HashBlockSize) {
		s.HashOffset = TreeOffset(s.HashBlockSize)
	}
	return s, s.Validate()
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// Encode returns the SuperblockSize bytes. HashOffset is not in them.
func (s Superblock) Encode() ([]byte, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	b := make([]byte, SuperblockSize)
	copy(b, sbSignature)
	binary.LittleEndian.PutUint32(b[sbVersion:], sbVersionNumber)
	binary.LittleEndian.PutUint32(b[sbHashType:], uint32(s.HashType))
	copy(b[sbUUID:], s.UUID[:])
	copy(b[sbAlgorithm:], s.Algorithm)
	binary.LittleEndian.PutUint32(b[sbDataBlockSize:], uint32(s.DataBlockSize))
	binary.LittleEndian.PutUint32(b[sbHashBlockSize:], uint32(s.HashBlockSize))
	binary.LittleEndian.PutUint64(b[sbDataBlocks:], s.DataBlocks)
	binary.LittleEndian.PutUint16(b[sbSaltSize:], uint16(len(s.Salt)))
	copy(b[sbSalt:], s.Salt)
	return b, nil
}
