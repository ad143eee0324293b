// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	extentSize = 12
	extraSize  = 32 // of the inode's fields behind the first 128 bytes: the kernel's own

	// An extended attribute in the inode: a magic, entries, and the values from the end.
	xattrAt       = 128 + extraSize
	xattrMagic    = 0xEA020000
	xattrHead     = 4
	xattrEntry    = 16 // of which the name follows
	xattrSecurity = 6  // stands for "security."
	capability    = "capability"
	// maxCapability is what is left of an inode, above the 24 bytes of a capability's largest form.
	maxCapability = 24
)

// encode writes struct ext4_inode. Times are zero but where Set gave one.
func (i *inode) encode(b []byte) {
	le := binary.LittleEndian
	le.PutUint16(b, uint16(i.mode))
	le.PutUint16(b[2:], uint16(i.uid))
	le.PutUint32(b[4:], uint32(i.size))
	le.PutUint32(b[108:], uint32(i.size>>32))
	le.PutUint16(b[24:], uint16(i.gid))
	le.PutUint16(b[26:], uint16(i.links()))
	le.PutUint16(b[120:], uint16(i.uid>>16))
	le.PutUint16(b[122:], uint16(i.gid>>16))
	le.PutUint16(b[128:], extraSize)
	for _, at := range [][2]int{{8, 140}, {12, 132}, {16, 136}} { // accessed, changed, modified
		le.PutUint32(b[at[0]:], uint32(i.modified))
		// Two bits continue the signed seconds.
		le.PutUint32(b[at[1]:], uint32((i.modified-int64(int32(i.modified)))>>32)&3)
	}
	i.encodeCapability(b[xattrAt:inodeSize])
	block := b[40 : 40+inodeBlockBytes]
	switch {
	case i.fast():
		copy(block, i.target)
		return
	case i.mode&unix.S_IFMT == unix.S_IFCHR || i.mode&unix.S_IFMT == unix.S_IFBLK:
		if i.major < 256 && i.minor < 256 {
			le.PutUint32(block, i.major<<8|i.minor)
		} else {
			le.PutUint32(block[4:], i.minor&0xFF|i.major<<8|i.minor&^0xFF<<12)
		}
		return
	case i.mode&unix.S_IFMT == unix.S_IFIFO:
		return
	}
	used := i.blocks()
	le.PutUint32(b[32:], flagExtents)
	if i.leaf == 0 {
		i.extentList(block, maxExtents)
	} else {
		used++
		le.PutUint16(block, extentMagic)
		le.PutUint16(block[2:], 1)
		le.PutUint16(block[4:], maxExtents)
		le.PutUint16(block[6:], 1) // depth
		le.PutUint32(block[extentSize+4:], uint32(i.leaf))
	}
	le.PutUint32(b[28:], uint32(used*BlockSize/512))
}

func (i *inode) extents() int64 { return (i.blocks() + extentBlocks - 1) / extentBlocks }

// extentBlock is the block of extents of a file with more than an inode has room for.
func (i *inode) extentBlock() []byte {
	b := make([]byte, BlockSize)
	i.extentList(b, leafExtents)
	return b
}

// extentList writes struct ext4_extent_header, of a list with room for limit, and the extents.
func (i *inode) extentList(b []byte, limit uint16) {
	le := binary.LittleEndian
	le.PutUint16(b, extentMagic)
	le.PutUint16(b[4:], limit)
	n := 0
	for done := int64(0); done < i.blocks(); n++ {
		e := b[extentSize*(n+1):]
		length := min(i.blocks()-done, extentBlocks)
		le.PutUint32(e, uint32(done))
		le.PutUint16(e[4:], uint16(length))
		le.PutUint32(e[8:], uint32(i.at+done))
		done += length
	}
	le.PutUint16(b[2:], uint16(n))
}

// encodeCapability writes struct ext4_xattr_ibody_header, one entry, an end of zeros, and the value at the very end.
func (i *inode) encodeCapability(b []byte) {
	if len(i.capability) == 0 {
		return
	}
	le := binary.LittleEndian
	le.PutUint32(b, xattrMagic)
	entries := b[xattrHead:]
	at := (len(entries) - len(i.capability)) &^ 3
	entries[0], entries[1] = byte(len(capability)), xattrSecurity
	le.PutUint16(entries[2:], uint16(at))
	le.PutUint32(entries[8:], uint32(len(i.capability)))
	copy(entries[xattrEntry:], capability)
	copy(entries[at:], i.capability)
}
