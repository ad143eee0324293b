// SPDX-License-Identifier: Apache-2.0

package ext4

import "encoding/binary"

// Flags of a group descriptor.
const (
	inodeUninit = 1 // no inode of the group is in use
	inodeZeroed = 4 // the inode table is written
)

// usedInodes are those of a new file system: 1 to 10 are reserved, 11 is lost+found. They lie in the first group.
const usedInodes = 11

// blockBitmapOf fills one block: bits of used blocks and of blocks behind the end are set.
func (g *geometry) blockBitmapOf(group uint64, block []byte) {
	clear(block)
	g.used(group, func(from, to uint64) { setBits(block, from, to) })
	setBits(block, g.groupBlocks(group), blocksPerGroup)
}

// inodeBitmapOf fills one block: bits of used inodes and bits that stand for no inode are set.
func (g *geometry) inodeBitmapOf(group uint64, block []byte) {
	clear(block)
	if group == 0 {
		setBits(block, 0, usedInodes)
	}
	setBits(block, g.inodesPerGroup, 8*blockSize)
}

func setBits(block []byte, from, to uint64) {
	for ; from < to && from%8 != 0; from++ {
		block[from/8] |= 1 << (from % 8)
	}
	for ; from+8 <= to; from += 8 {
		block[from/8] = 0xff
	}
	for ; from < to; from++ {
		block[from/8] |= 1 << (from % 8)
	}
}

// freeInodes counts the free inodes of a group.
func (g *geometry) freeInodes(group uint64) uint64 {
	if group == 0 {
		return g.inodesPerGroup - usedInodes
	}
	return g.inodesPerGroup
}

// descriptors returns all group descriptors, padded with zeros to whole blocks (kernel: group_descr.rst).
func (g *geometry) descriptors(seed checksum) []byte {
	table := make([]byte, g.descBlocks*blockSize)
	bitmap := make([]byte, blockSize)
	for group := range g.groups {
		d := table[group*descSize:][:descSize]
		split := func(low, high int, v uint64) {
			binary.LittleEndian.PutUint32(d[low:], uint32(v))
			binary.LittleEndian.PutUint32(d[high:], uint32(v>>32))
		}
		split(0, 32, g.blockBitmap[group])
		split(4, 36, g.inodeBitmap[group])
		split(8, 40, g.table[group])

		// Counts up to 32768 fit in the low halves.
		put16 := func(at int, v uint64) { binary.LittleEndian.PutUint16(d[at:], uint16(v)) }
		put16(12, g.freeBlocks(group))
		put16(14, g.freeInodes(group))
		put16(18, inodeZeroed|inodeUninit)
		if group == 0 {
			put16(16, 2) // directories
			put16(18, inodeZeroed)
		}
		put16(28, g.freeInodes(group)) // never used, up to the table's end

		g.blockBitmapOf(group, bitmap)
		sum := uint64(seed.of(bitmap))
		put16(24, sum)
		put16(56, sum>>16)
		g.inodeBitmapOf(group, bitmap)
		sum = uint64(seed.of(bitmap[:g.inodesPerGroup/8]))
		put16(26, sum)
		put16(58, sum>>16)

		put16(30, uint64(seed.uint32(uint32(group)).of(d))) // over the descriptor with this field zero
	}
	return table
}
