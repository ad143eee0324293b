// SPDX-License-Identifier: Apache-2.0

package erofs

import "encoding/binary"

const (
	// BlockBytes is the block size of an image and of an archive.
	BlockBytes = 512
	// HeadBytes is where the caller's data begins: a page, so that the archive keeps its alignment in memory.
	HeadBytes = 4096

	superOffset = 1024 // EROFS_SUPER_OFFSET
	superMagic  = 0xE0F5E1E2
	blockBits   = 9

	compatMtime     = 0x2 // EROFS_FEATURE_COMPAT_MTIME: inodes hold modification times
	incompatChunked = 0x4 // EROFS_FEATURE_INCOMPAT_CHUNKED_FILE
)

// superblock is what differs between images; see struct erofs_super_block.
type superblock struct {
	root    uint16 // nid: distance from meta in slots of 32 bytes
	inodes  uint64
	blocks  uint32 // of the whole image
	meta    uint32 // block where nid 0 is
	uuid    [16]byte
	chunked bool
}

// encode is the whole block that holds the superblock. It has no checksum: the feature is left out, because
// erofs-utils up to 1.8 reads one wrong in blocks of less than 1024 bytes, and whoever can change the image can change
// a checksum.
func (s *superblock) encode() []byte {
	b := make([]byte, BlockBytes)
	le := binary.LittleEndian
	le.PutUint32(b, superMagic)
	le.PutUint32(b[8:], compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], s.root)
	le.PutUint64(b[16:], s.inodes)
	le.PutUint32(b[36:], s.blocks)
	le.PutUint32(b[40:], s.meta)
	copy(b[48:64], s.uuid[:])
	if s.chunked {
		le.PutUint32(b[80:], incompatChunked)
	}
	return b
}
