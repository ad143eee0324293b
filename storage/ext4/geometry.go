// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

const (
	blockSize      = 4096
	blocksPerGroup = 8 * blockSize // one block of bitmap
	maxInodes      = 8 * blockSize // of a group: one block of bitmap
	descSize       = 64
	groupsPerFlex  = 16
	lostBlocks     = 4 // of lost+found: room for what e2fsck finds when no block is free
	// maxJournal is the longest extent of written blocks: 128 MiB. mke2fs makes up to 1 GiB for large devices; here
	// every block of it is written.
	maxJournal = 32768
)

// kind is what a piece holds.
type kind int

const (
	superblocks  kind = iota // superblock and all group descriptors
	blockBitmaps             // one block for each group of a flex group
	inodeBitmaps             // likewise
	inodeTable
	rootDirectory
	lostFound
	journal
)

// piece is a run of blocks that Format writes.
type piece struct {
	kind   kind
	start  uint64 // block
	count  uint64 // blocks
	group  uint64 // that it belongs to, or the first of a flex group
	groups uint64 // of the bitmaps
}

func (p piece) end() uint64 { return p.start + p.count }

// geometry is where everything lies.
type geometry struct {
	blocks         uint64
	groups         uint64
	descBlocks     uint64 // of one copy of the group descriptors
	inodesPerGroup uint64
	tableBlocks    uint64  // inode table of one group
	pieces         []piece // by start; they do not overlap
	// First blocks, by group.
	blockBitmap, inodeBitmap, table []uint64
}

func divCeil(a, b uint64) uint64 { return (a + b - 1) / b }

// hasBackup says whether a group starts with a superblock (sparse_super): groups 0, 1 and the powers of 3, 5 and 7.
func hasBackup(group uint64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}

// newGeometry computes the place of everything, as mke2fs does.
func newGeometry(size int64, o Options) (*geometry, error) {
	g := &geometry{blocks: uint64(size) / blockSize}
	inodes := uint64(size) / blockSize * blockSize / uint64(o.BytesPerInode)
	for {
		g.groups = divCeil(g.blocks, blocksPerGroup)
		g.descBlocks = divCeil(g.groups*descSize, blockSize)
		inodeSize := uint64(o.InodeSize)
		// The first group holds all inodes of a new file system; a group that was left out leaves more to the others.
		g.inodesPerGroup = min(max(divCeil(inodes, g.groups), usedInodes+1), maxInodes)
		g.tableBlocks = divCeil(g.inodesPerGroup*inodeSize, blockSize)
		g.inodesPerGroup = g.tableBlocks * blockSize / inodeSize
		if g.inodesPerGroup*g.groups > math.MaxUint32 {
			return nil, fmt.Errorf("%d bytes per inode make %d inodes, want at most %d", o.BytesPerInode, g.inodesPerGroup*g.groups, uint32(math.MaxUint32))
		}
		// A last group without room for its own metadata and a few files is left out.
		need := g.tableBlocks + 2 + 50
		if hasBackup(g.groups - 1) {
			need += 1 + g.descBlocks
		}
		rest := g.blocks % blocksPerGroup
		if rest == 0 || rest >= need || g.groups == 1 {
			break
		}
		g.blocks -= rest
	}
	if err := g.placeGroups(); err != nil {
		return nil, err
	}
	return g, g.placeFiles(o)
}

// placeGroups places the superblocks, and the bitmaps and tables of each flex group in its first group.
func (g *geometry) placeGroups() error {
	for _, list := range []*[]uint64{&g.blockBitmap, &g.inodeBitmap, &g.table} {
		*list = make([]uint64, g.groups)
	}
	for first := uint64(0); first < g.groups; first += groupsPerFlex {
		n := min(groupsPerFlex, g.groups-first)
		at := first * blocksPerGroup
		place := func(k kind, group, count, groups uint64) uint64 {
			at = g.behindBackups(at, count)
			g.pieces = append(g.pieces, piece{kind: k, start: at, count: count, group: group, groups: groups})
			at += count
			return at - count
		}
		blockMaps := place(blockBitmaps, first, n, n)
		inodeMaps := place(inodeBitmaps, first, n, n)
		for i := range n {
			if hasBackup(first + i) {
				g.pieces = append(g.pieces, piece{kind: superblocks, start: (first + i) * blocksPerGroup, count: 1 + g.descBlocks, group: first + i})
			}
			g.blockBitmap[first+i], g.inodeBitmap[first+i] = blockMaps+i, inodeMaps+i
			g.table[first+i] = place(inodeTable, first+i, g.tableBlocks, 0)
		}
		if end := min((first+n)*blocksPerGroup, g.blocks); at > end {
			return fmt.Errorf("metadata of the groups from %d on ends at block %d, behind their end %d", first, at, end)
		}
	}
	g.sort()
	return nil
}

func (g *geometry) sort() {
	slices.SortFunc(g.pieces, func(a, b piece) int { return cmp.Compare(a.start, b.start) })
}

// behindBackups returns the first block from at on where count blocks meet no superblock or descriptors.
func (g *geometry) behindBackups(at, count uint64) uint64 {
	for group := at / blocksPerGroup; group*blocksPerGroup < at+count; group++ {
		if end := group*blocksPerGroup + 1 + g.descBlocks; hasBackup(group) && at < end {
			at = end
		}
	}
	return at
}

// placeFiles places the directories and the journal in the first gaps that hold them whole.
func (g *geometry) placeFiles(o Options) error {
	files := []piece{{kind: rootDirectory, count: 1}, {kind: lostFound, count: lostBlocks}}
	if o.Journal {
		files = append(files, piece{kind: journal, count: journalBlocks(g.blocks)})
	}
	for _, file := range files {
		for i, p := range g.pieces {
			next := g.blocks
			if i+1 < len(g.pieces) {
				next = g.pieces[i+1].start
			}
			if next-p.end() >= file.count {
				file.start = p.end()
				break
			}
		}
		if file.start == 0 {
			return fmt.Errorf("no %d free blocks in a row for the journal or a directory", file.count)
		}
		g.pieces = append(g.pieces, file)
		g.sort()
	}
	return nil
}

// journalBlocks is the size that mke2fs gives a journal, capped.
func journalBlocks(blocks uint64) uint64 {
	switch {
	case blocks < 32768:
		return 1024
	case blocks < 256*1024:
		return 4096
	case blocks < 512*1024:
		return 8192
	case blocks < 4096*1024:
		return 16384
	}
	return maxJournal
}

// file returns the place of one of the files.
func (g *geometry) file(k kind) piece {
	i := slices.IndexFunc(g.pieces, func(p piece) bool { return p.kind == k })
	if i < 0 {
		return piece{}
	}
	return g.pieces[i]
}

// groupBlocks is the number of blocks of a group; only the last is shorter.
func (g *geometry) groupBlocks(group uint64) uint64 {
	return min(blocksPerGroup, g.blocks-group*blocksPerGroup)
}

// used calls yield for each run of used blocks in a group, counted from the group's start.
func (g *geometry) used(group uint64, yield func(from, to uint64)) {
	start := group * blocksPerGroup
	end := start + g.groupBlocks(group)
	first, _ := slices.BinarySearchFunc(g.pieces, start, func(p piece, at uint64) int {
		if p.end() <= at {
			return -1
		}
		return 1
	})
	for _, p := range g.pieces[first:] {
		if p.start >= end {
			return
		}
		yield(max(p.start, start)-start, min(p.end(), end)-start)
	}
}

// freeBlocks counts the free blocks of a group.
func (g *geometry) freeBlocks(group uint64) uint64 {
	free := g.groupBlocks(group)
	g.used(group, func(from, to uint64) { free -= to - from })
	return free
}
