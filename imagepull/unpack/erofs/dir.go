// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// entryBytes is struct erofs_dirent.
const entryBytes = 12

// Entry is a name in a directory, 1 to 255 bytes.
type Entry struct {
	Name  string
	Inode *Inode
}

// sorted brings the entries, which have no "." and "..", into the order by which the kernel searches. Between them the
// two are found by iterating: each block is filled while the next entry fits.
func (i *Inode) sort() {
	slices.SortFunc(i.Extra.Entries, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
}

// all calls f for every entry in order, with "." and ".." at their places.
func (i *Inode) all(parent *Inode, f func(Entry)) {
	own := [2]Entry{{".", i}, {"..", parent}}
	next := 0
	for _, e := range i.Extra.Entries {
		for ; next < len(own) && own[next].Name < e.Name; next++ {
			f(own[next])
		}
		f(e)
	}
	for ; next < len(own); next++ {
		f(own[next])
	}
}

// measure finds out how long the directory's content is. Only its last block is cut to what is in it.
func (i *Inode) measure() {
	full, used := int64(0), 0
	i.all(i, func(e Entry) {
		n := entryBytes + len(e.Name)
		if used+n > BlockBytes {
			full, used = full+1, 0
		}
		used += n
	})
	i.Extra.length = full*BlockBytes + int64(used)
}

// appendEntries appends the directory's content. In each block the records come first and the names behind them; a
// name ends where the next begins, the last one at a zero byte or the end.
func (i *Inode) appendEntries(b []byte, parent *Inode) []byte {
	var block []Entry
	used := 0
	i.all(parent, func(e Entry) {
		n := entryBytes + len(e.Name)
		if used+n > BlockBytes {
			b = appendBlock(b, block)
			b = append(b, make([]byte, BlockBytes-used)...)
			block, used = block[:0], 0
		}
		block, used = append(block, e), used+n
	})
	return appendBlock(b, block)
}

func appendBlock(b []byte, block []Entry) []byte {
	at := entryBytes * len(block)
	for _, e := range block {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Inode.nid))
		b = binary.LittleEndian.AppendUint16(b, uint16(at))
		b = append(b, fileType(e.Inode.Mode), 0)
		at += len(e.Name)
	}
	for _, e := range block {
		b = append(b, e.Name...)
	}
	return b
}

// fileType is EROFS_FT_*.
func fileType(mode uint32) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFLNK:
		return 7
	}
	return 0
}
