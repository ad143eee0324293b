// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"fmt"
	"io"
)

// Layout is what Format made.
type Layout struct {
	Blocks         uint64 // of 4096 bytes; a rest of the device too short for a group is left out
	FreeBlocks     uint64
	Groups         uint64 // of 32768 blocks
	InodesPerGroup uint64
	JournalBlocks  uint64
	// Ranges are the bytes that were written, by offset, merged where they touch. The kernel and e2fsck read nothing
	// else before they write it.
	Ranges []Range
}

// Format makes a file system on the first size bytes of w, 16 MiB to 16 TiB. It reads nothing and trusts nothing
// that lies there. The superblock is cleared first and written last, so a format that fails or is cut off leaves
// nothing that mounts, provided that w keeps the order; syncing is the caller's part, as is closing w.
func Format(w io.WriterAt, size int64, o Options) (Layout, error) {
	if err := o.check(size); err != nil {
		return Layout{}, fmt.Errorf("checking ext4 options: %w", err)
	}
	g, err := newGeometry(size, o)
	if err != nil {
		return Layout{}, fmt.Errorf("placing ext4 metadata: %w", err)
	}
	f := &formatter{geometry: g, options: o, seed: noSeed.of(o.UUID[:]), writer: newWriter(w)}
	f.table = g.descriptors(f.seed)
	if err := f.write(); err != nil {
		return Layout{}, fmt.Errorf("making ext4: %w", err)
	}
	return Layout{
		Blocks:         g.blocks,
		FreeBlocks:     g.allFree(),
		Groups:         g.groups,
		InodesPerGroup: g.inodesPerGroup,
		JournalBlocks:  g.file(journal).count,
		Ranges:         f.ranges,
	}, nil
}

type formatter struct {
	*geometry
	*writer
	options Options
	seed    checksum
	table   []byte // group descriptors
}

func (f *formatter) write() error {
	// Alone, so that no other write waits in front of it.
	if err := f.zero(0, blockSize); err != nil {
		return err
	}
	if err := f.flush(); err != nil {
		return err
	}
	for _, p := range f.pieces {
		if err := f.piece(p); err != nil {
			return err
		}
	}
	if err := f.flush(); err != nil {
		return err
	}
	if _, err := f.to.WriteAt(f.firstBlock(), 0); err != nil {
		return fmt.Errorf("writing the superblock: %w", err)
	}
	return nil
}

// firstBlock holds the superblock behind an empty boot sector.
func (f *formatter) firstBlock() []byte {
	b := make([]byte, blockSize)
	copy(b[superOffset:], f.superblock(f.options, 0))
	return b
}

// piece writes one run of blocks.
func (f *formatter) piece(p piece) error {
	at, length := int64(p.start)*blockSize, int64(p.count)*blockSize
	switch p.kind {
	case superblocks:
		if p.group == 0 {
			return f.put(blockSize, f.table)
		}
		b := make([]byte, blockSize, length)
		copy(b, f.superblock(f.options, p.group))
		return f.put(at, append(b, f.table...))
	case blockBitmaps:
		return f.bitmaps(p, f.blockBitmapOf)
	case inodeBitmaps:
		return f.bitmaps(p, f.inodeBitmapOf)
	case inodeTable:
		var inodes []byte
		if p.group == 0 {
			inodes = f.inodes()
		}
		if err := f.put(at, inodes); err != nil {
			return err
		}
		return f.zero(at+int64(len(inodes)), length-int64(len(inodes)))
	case rootDirectory:
		return f.put(at, f.root().directory(f.seed, []entry{{rootInode, "."}, {rootInode, ".."}, {lostInode, "lost+found"}}))
	case lostFound:
		return f.put(at, f.lost().directory(f.seed, []entry{{lostInode, "."}, {rootInode, ".."}}))
	default: // journal
		if err := f.put(at, journalSuperblock(p.count, f.options.UUID)); err != nil {
			return err
		}
		return f.zero(at+blockSize, length-blockSize)
	}
}

func (f *formatter) bitmaps(p piece, fill func(group uint64, block []byte)) error {
	block := make([]byte, blockSize)
	for i := range p.groups {
		fill(p.group+i, block)
		if err := f.put(int64(p.start+i)*blockSize, block); err != nil {
			return err
		}
	}
	return nil
}

// inodes returns the start of the first inode table. Reserved inodes without use are zero.
func (f *formatter) inodes() []byte {
	b := make([]byte, usedInodes*f.options.InodeSize)
	list := []inode{f.root(), f.lost()}
	if f.options.Journal {
		list = append(list, f.journal())
	}
	for _, n := range list {
		copy(b[int(n.number-1)*f.options.InodeSize:], n.encode(f.options, f.seed))
	}
	return b
}

func (f *formatter) root() inode {
	o := f.options
	return inode{number: rootInode, mode: modeDirectory | uint16(o.RootMode), uid: o.RootUID, gid: o.RootGID, links: 3, data: f.file(rootDirectory)}
}

func (f *formatter) lost() inode {
	return inode{number: lostInode, mode: modeDirectory | 0o700, links: 2, data: f.file(lostFound)}
}

func (g *geometry) journal() inode {
	return inode{number: journalInode, mode: modeRegular | 0o600, links: 1, data: g.file(journal)}
}
