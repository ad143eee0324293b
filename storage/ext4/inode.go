// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"encoding/binary"
	"math"
)

// Numbers of the inodes in use.
const (
	rootInode    = 2
	journalInode = 8
	lostInode    = 11
)

// File types: in an inode's mode, and in a directory's entry.
const (
	modeDirectory = 0o040000
	modeRegular   = 0o100000
	typeDirectory = 2
	typeChecksum  = 0xde
)

const (
	extraSize    = 32 // bytes behind the first 128 of an inode that are in use
	tailSize     = 12 // checksum at the end of a directory's block
	extentsFlag  = 0x80000
	extentMagic  = 0xf30a
	inlineExtent = 4 // extents that fit in an inode
)

// inode is one file of the new file system.
type inode struct {
	number   uint32
	mode     uint16
	uid, gid uint32
	links    uint16
	data     piece
}

func (n inode) size() uint64 { return n.data.count * blockSize }

// extents returns the 60 bytes of i_block: one extent, which holds all of the file.
func (n inode) extents() []byte {
	b := make([]byte, 60)
	le := binary.LittleEndian
	le.PutUint16(b[0:], extentMagic)
	le.PutUint16(b[2:], 1)
	le.PutUint16(b[4:], inlineExtent)
	le.PutUint16(b[16:], uint16(n.data.count))
	le.PutUint16(b[18:], uint16(n.data.start>>32))
	le.PutUint32(b[20:], uint32(n.data.start))
	return b
}

// encode returns the inode as it lies in the table (kernel: inodes.rst).
func (n inode) encode(o Options, seed checksum) []byte {
	b := make([]byte, o.InodeSize)
	le := binary.LittleEndian
	seconds := uint64(o.Now.Unix())
	le.PutUint16(b[0x00:], n.mode)
	le.PutUint16(b[0x02:], uint16(n.uid))
	le.PutUint32(b[0x04:], uint32(n.size()))
	for _, at := range []int{0x08, 0x0c, 0x10} {
		le.PutUint32(b[at:], uint32(seconds))
	}
	le.PutUint16(b[0x18:], uint16(n.gid))
	le.PutUint16(b[0x1a:], n.links)
	le.PutUint32(b[0x1c:], uint32(n.size()/512))
	le.PutUint32(b[0x20:], extentsFlag)
	copy(b[0x28:], n.extents())
	le.PutUint16(b[0x78:], uint16(n.uid>>16))
	le.PutUint16(b[0x7a:], uint16(n.gid>>16))
	if o.InodeSize > 128 {
		le.PutUint16(b[0x80:], extraSize)
		// The low word is signed, so each epoch begins 2^31 seconds early.
		epoch := uint32((seconds + math.MaxInt32 + 1) >> 32)
		le.PutUint32(b[0x90:], uint32(seconds)) // creation
		for _, at := range []int{0x84, 0x88, 0x8c, 0x94} {
			le.PutUint32(b[at:], epoch)
		}
	}
	sum := n.seed(seed).of(b)
	le.PutUint16(b[0x7c:], uint16(sum))
	if o.InodeSize > 128 {
		le.PutUint16(b[0x82:], uint16(sum>>16))
	}
	return b
}

// seed starts the checksums of the inode and of its blocks; the generation is 0.
func (n inode) seed(seed checksum) checksum { return seed.uint32(n.number).uint32(0) }

// entry is a name in a directory.
type entry struct {
	inode uint32
	name  string
}

// directory returns the blocks of a directory whose entries lie in the first (kernel: directory.rst).
func (n inode) directory(seed checksum, entries []entry) []byte {
	all := make([]byte, n.size())
	for at := 0; at < len(all); at += blockSize {
		block := all[at:][:blockSize]
		if at > 0 {
			entries = []entry{{}} // the rest of the block is free
		}
		fillDirectory(block[:blockSize-tailSize], entries)
		tail := block[blockSize-tailSize:]
		binary.LittleEndian.PutUint16(tail[4:], tailSize)
		tail[7] = typeChecksum
		binary.LittleEndian.PutUint32(tail[8:], uint32(n.seed(seed).of(block[:blockSize-tailSize])))
	}
	return all
}

// fillDirectory writes entries, the last of which takes the room that is left.
func fillDirectory(block []byte, entries []entry) {
	for i, e := range entries {
		length := 8 + (len(e.name)+3)/4*4
		if i == len(entries)-1 {
			length = len(block)
		}
		binary.LittleEndian.PutUint32(block[0:], e.inode)
		binary.LittleEndian.PutUint16(block[4:], uint16(length))
		block[6] = byte(len(e.name))
		if e.inode != 0 {
			block[7] = typeDirectory
		}
		copy(block[8:], e.name)
		block = block[length:]
	}
}

// journalSuperblock returns the first block of an empty journal (kernel: journal.rst); all of it is big-endian.
func journalSuperblock(blocks uint64, uuid [16]byte) []byte {
	b := make([]byte, blockSize)
	be := binary.BigEndian
	be.PutUint32(b[0x00:], 0xc03b3998)
	be.PutUint32(b[0x04:], 4) // superblock, version 2
	be.PutUint32(b[0x0c:], blockSize)
	be.PutUint32(b[0x10:], uint32(blocks))
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first transaction expected
	copy(b[0x30:], uuid[:])
	be.PutUint32(b[0x40:], 1) // file systems that use it
	return b
}
