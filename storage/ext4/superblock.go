// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"crypto/sha256"
	"encoding/binary"
)

const (
	superOffset = 1024 // of the superblock in block 0; in other groups it starts the block
	superSize   = 1024
)

// Features (kernel: super.rst).
const (
	compatJournal  = 0x4
	compatAttr     = 0x8
	compatDirIndex = 0x20
	incompatAlways = 0x2 | 0x40 | 0x80 | 0x200 // filetype, extents, 64bit, flex_bg
	// sparse_super, large_file, huge_file, dir_nlink, extra_isize, metadata_csum
	readOnlyAlways = 0x1 | 0x2 | 0x8 | 0x20 | 0x40 | 0x400
)

// Values of other fields.
const (
	stateClean      = 1
	errorsReadOnly  = 2 // a damaged block makes the mount read-only
	signedHash      = 1 // how the bytes of names are taken: as on x86
	halfMD4         = 1
	mountXattrACL   = 0x4 | 0x8 // user_xattr, acl
	noMaximumMounts = 0xffff
	checksumCRC32C  = 1
	journalCopied   = 1 // the superblock repeats the journal's place
)

// superblock returns the superblock of a group, 1024 bytes. That of group 0 alone says that the file system is clean:
// whoever must use a copy has to check it all.
func (g *geometry) superblock(o Options, group uint64) []byte {
	b := make([]byte, superSize)
	le := binary.LittleEndian
	put16 := func(at int, v uint16) { le.PutUint16(b[at:], v) }
	put32 := func(at int, v uint32) { le.PutUint32(b[at:], v) }
	split := func(low, high int, v uint64) {
		put32(low, uint32(v))
		put32(high, uint32(v>>32))
	}
	put32(0x00, uint32(g.groups*g.inodesPerGroup))
	split(0x04, 0x150, g.blocks)
	split(0x08, 0x154, g.blocks*uint64(o.ReservedPercent)/100)
	split(0x0c, 0x158, g.allFree())
	put32(0x10, uint32(g.groups*g.inodesPerGroup-usedInodes))
	put32(0x18, 2) // log2(block size / 1024)
	put32(0x1c, 2) // of clusters, which are blocks
	put32(0x20, blocksPerGroup)
	put32(0x24, blocksPerGroup)
	put32(0x28, uint32(g.inodesPerGroup))
	put16(0x36, noMaximumMounts)
	put16(0x38, 0xef53)
	if group == 0 {
		put16(0x3a, stateClean)
	}
	put16(0x3c, errorsReadOnly)
	put32(0x4c, 1) // revision with features
	put32(0x54, lostInode)
	put16(0x58, uint16(o.InodeSize))
	put16(0x5a, uint16(group))
	copy(b[0x68:], o.UUID[:])
	copy(b[0x78:], o.Label)
	hashSeed := sha256.Sum256(append([]byte("casemate ext4 directory hash\x00"), o.UUID[:]...))
	copy(b[0xec:], hashSeed[:16])
	b[0xfc] = halfMD4
	put16(0xfe, descSize)
	put32(0x100, mountXattrACL)
	put32(0x160, signedHash)
	b[0x174] = 4 // log2(groupsPerFlex)
	b[0x175] = checksumCRC32C
	g.superTimes(o, b)
	g.superFeatures(o, b)
	put32(superSize-4, uint32(noSeed.of(b[:superSize-4])))
	return b
}

// superTimes writes the times of the last write, the last check and the making: 32 bits, and 8 more elsewhere.
func (g *geometry) superTimes(o Options, b []byte) {
	seconds := uint64(o.Now.Unix())
	for low, high := range map[int]int{0x30: 0x274, 0x108: 0x276, 0x40: 0x277} {
		binary.LittleEndian.PutUint32(b[low:], uint32(seconds))
		b[high] = byte(seconds >> 32)
	}
}

// superFeatures writes the features and the fields that belong to some of them.
func (g *geometry) superFeatures(o Options, b []byte) {
	le := binary.LittleEndian
	compat := uint32(compatAttr | compatDirIndex)
	if o.InodeSize > 128 {
		le.PutUint16(b[0x15c:], extraSize)
		le.PutUint16(b[0x15e:], extraSize)
	}
	if o.Journal {
		compat |= compatJournal
		n := g.journal()
		le.PutUint32(b[0xe0:], journalInode)
		b[0xfd] = journalCopied
		copy(b[0x10c:], n.extents())
		le.PutUint32(b[0x14c:], uint32(n.size())) // behind its high half, which is 0
	}
	le.PutUint32(b[0x5c:], compat)
	le.PutUint32(b[0x60:], incompatAlways)
	le.PutUint32(b[0x64:], readOnlyAlways)
}

// allFree counts the free blocks.
func (g *geometry) allFree() uint64 {
	free := g.blocks
	for _, p := range g.pieces {
		free -= p.count
	}
	return free
}
