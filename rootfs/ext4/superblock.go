// SPDX-License-Identifier: Apache-2.0

package ext4

import "encoding/binary"

const (
	superblockAt = 1024
	magic        = 0xEF53

	compatExtAttr      = 0x8
	compatSparseSuper2 = 0x200 // and no group named: there are no backups

	incompatFileType = 0x2
	incompatExtents  = 0x40
	incompatFlexBG   = 0x200

	readOnlyLargeFile  = 0x2
	readOnlyExtraIsize = 0x40
)

// superblock is the first block with struct ext4_super_block in it.
func (f *Writer) superblock(l layout, freeInodes uint32) []byte {
	le, block := binary.LittleEndian, make([]byte, BlockSize)
	s := block[superblockAt:]
	le.PutUint32(s[0x00:], uint32(l.perGroup*l.groups))
	le.PutUint32(s[0x04:], uint32(l.blocks))
	le.PutUint32(s[0x0C:], uint32(l.free))
	le.PutUint32(s[0x10:], freeInodes)
	le.PutUint32(s[0x18:], 2) // blocks of 1024 << 2 bytes
	le.PutUint32(s[0x1C:], 2) // clusters too
	le.PutUint32(s[0x20:], groupBlocks)
	le.PutUint32(s[0x24:], groupBlocks)
	le.PutUint32(s[0x28:], uint32(l.perGroup))
	le.PutUint16(s[0x36:], 0xFFFF) // never checked for having been mounted often
	le.PutUint16(s[0x38:], magic)
	le.PutUint16(s[0x3A:], 1) // clean
	le.PutUint16(s[0x3C:], 2) // an error makes it read-only
	le.PutUint32(s[0x4C:], 1) // revision with the fields that follow
	le.PutUint32(s[0x54:], firstInode)
	le.PutUint16(s[0x58:], inodeSize)
	le.PutUint32(s[0x5C:], compatSparseSuper2)
	if f.xattrs {
		le.PutUint32(s[0x5C:], compatSparseSuper2|compatExtAttr)
	}
	le.PutUint32(s[0x60:], incompatFileType|incompatExtents|incompatFlexBG)
	le.PutUint32(s[0x64:], readOnlyLargeFile|readOnlyExtraIsize)
	uuid := f.data.Sum(nil)[:16]
	uuid[6], uuid[8] = uuid[6]&0x0F|0x80, uuid[8]&0x3F|0x80 // version 8: made by rules of one's own
	copy(s[0x68:], uuid)
	copy(s[0x78:], "root")
	le.PutUint16(s[0x15C:], 32) // i_extra_isize at least
	le.PutUint16(s[0x15E:], 32) // and wanted
	s[0x174] = l.sizeBits()
	return block
}
