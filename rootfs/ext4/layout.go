// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
)

const (
	groupBlocks   = 8 * BlockSize // one block of bits says which are taken
	maxGroups     = BlockSize / descSize
	descSize      = 32
	inodeSize     = 256
	inodesInBlock = BlockSize / inodeSize
	// inodeBlockBytes is what an inode has for extents, a short target or a device.
	inodeBlockBytes = 60

	flagExtents = 0x80000
	extentMagic = 0xF30A

	// Values of directory entries.
	typeFile, typeDir, typeChar, typeBlock, typeFIFO, typeLink = 1, 2, 3, 4, 5, 7
)

// layout says where metadata lies: per group its two bitmaps, all of them behind one
// another, and then the inode tables.
type layout struct {
	blocks, groups, meta int64 // meta is the first block of metadata
	perGroup, tables     int64 // inodes, and blocks with them, of a group
	free                 int64 // blocks at the end, where there are more inodes than groups for the data alone have room for
}

// plan finds the least number of groups that has room for itself.
func plan(used, inodes int64) (layout, error) {
	for groups := int64(1); groups <= maxGroups; groups++ {
		perGroup := roundUp((inodes+groups-1)/groups, inodesInBlock)
		l := layout{groups: groups, meta: used, perGroup: perGroup, tables: perGroup / inodesInBlock}
		l.blocks = used + groups*(2+l.tables)
		if l.blocks <= groups*groupBlocks && perGroup <= groupBlocks {
			// The kernel counts the groups by their blocks: the last one has at least one.
			l.free = max(0, (groups-1)*groupBlocks+1-l.blocks)
			l.blocks += l.free
			return l, nil
		}
	}
	return layout{}, fmt.Errorf("laying out the file system: %d blocks have no room in %d groups", used, maxGroups)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func (l layout) blockBitmap(group int64) int64 { return l.meta + group }
func (l layout) inodeBitmap(group int64) int64 { return l.meta + l.groups + group }
func (l layout) table(group int64) int64       { return l.meta + 2*l.groups + group*l.tables }

// Close writes the directories and everything that describes the files, and returns the
// size of the file system in bytes, a multiple of BlockSize.
func (f *Writer) Close() (size int64, err error) {
	for _, i := range append([]*inode{f.root}, f.inodes...) {
		if f.err == nil && i.isDir() {
			f.err = f.directory(i)
		}
	}
	if f.err != nil {
		return 0, f.err
	}
	l, err := plan(f.block, firstInode-1+int64(len(f.inodes)))
	if err == nil {
		err = f.metadata(l)
	}
	f.err = err
	return l.blocks * BlockSize, err
}

// metadata writes bitmaps and tables, then the descriptors and the superblock, which has
// a name that is made of all before it.
func (f *Writer) metadata(l layout) error {
	descriptors := make([]byte, BlockSize)
	used := int64(firstInode - 1 + len(f.inodes))
	for g := range l.groups {
		inodes := min(max(used-g*l.perGroup, 0), l.perGroup)
		from, to := l.freeIn(g)
		if err := f.put(l.blockBitmap(g), taken(from, to)); err != nil {
			return err
		}
		if err := f.put(l.inodeBitmap(g), taken(inodes, l.perGroup)); err != nil {
			return err
		}
		if err := f.put(l.table(g), f.inodeTable(g, l)); err != nil {
			return err
		}
		d := descriptors[g*descSize:]
		binary.LittleEndian.PutUint32(d, uint32(l.blockBitmap(g)))
		binary.LittleEndian.PutUint32(d[4:], uint32(l.inodeBitmap(g)))
		binary.LittleEndian.PutUint32(d[8:], uint32(l.table(g)))
		binary.LittleEndian.PutUint16(d[12:], uint16(to-from))
		binary.LittleEndian.PutUint16(d[14:], uint16(l.perGroup-inodes))
		binary.LittleEndian.PutUint16(d[16:], uint16(f.directories(g, l)))
	}
	if err := f.put(1, descriptors); err != nil {
		return err
	}
	return f.put(0, f.superblock(l, uint32(l.perGroup*l.groups-used)))
}

func (f *Writer) put(block int64, b []byte) error {
	f.data.Write(b)
	if _, err := f.w.WriteAt(b, block*BlockSize); err != nil {
		return fmt.Errorf("writing the file system: %w", err)
	}
	return nil
}

// freeIn are the blocks of a group from which and to which none is used, counted from its first.
func (l layout) freeIn(group int64) (from, to int64) {
	first := group * groupBlocks
	to = min(l.blocks-first, groupBlocks)
	return min(max(l.blocks-l.free-first, 0), to), to
}

// taken is a bitmap of which the bits from one to below another are clear. Those that
// stand for nothing are set.
func taken(from, to int64) []byte {
	b := bytes.Repeat([]byte{0xFF}, BlockSize)
	for i := from; i < to; i++ {
		b[i/8] &^= 1 << (i % 8)
	}
	return b
}

// byNumber returns an inode, nil for those that stay empty.
func (f *Writer) byNumber(n int64) *inode {
	switch at := n - firstInode; {
	case n == rootInode:
		return f.root
	case at >= 0 && at < int64(len(f.inodes)):
		return f.inodes[at]
	}
	return nil
}

func (f *Writer) directories(group int64, l layout) (n int) {
	for k := range l.perGroup {
		if i := f.byNumber(group*l.perGroup + k + 1); i != nil && i.isDir() {
			n++
		}
	}
	return n
}

func (f *Writer) inodeTable(group int64, l layout) []byte {
	b := make([]byte, l.tables*BlockSize)
	for k := range l.perGroup {
		if i := f.byNumber(group*l.perGroup + k + 1); i != nil {
			i.encode(b[k*inodeSize:])
		}
	}
	return b
}

func (i *inode) links() int {
	if !i.isDir() {
		return 1 + i.names
	}
	return 2 + i.subdirs
}

// sizeBits is the exponent of the number of groups that may keep their metadata together.
func (l layout) sizeBits() byte { return byte(bits.Len64(uint64(maxGroups - 1))) }
