// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const entryHead = 8 // bytes before an entry's name

// directory writes a directory's blocks: entries of struct ext4_dir_entry_2, of which
// none crosses a block and the last of each reaches its end.
func (f *Writer) directory(i *inode) error {
	var blocks []byte
	last, left := 0, 0 // offset of the block's last entry; bytes behind it
	put := func(name string, number uint32, kind byte) {
		need := (entryHead + len(name) + 3) &^ 3
		if left < need {
			if len(blocks) > 0 {
				grow(blocks[last:], left)
			}
			blocks = append(blocks, make([]byte, BlockSize)...)
			left = BlockSize
		}
		last = len(blocks) - left
		e := blocks[last:]
		binary.LittleEndian.PutUint32(e, number)
		binary.LittleEndian.PutUint16(e[4:], uint16(need))
		e[6], e[7] = byte(len(name)), kind
		copy(e[entryHead:], name)
		left -= need
	}
	put(".", i.number, typeDir)
	put("..", i.parent.number, typeDir)
	for _, c := range i.children {
		put(c.name, c.number, c.kind())
	}
	grow(blocks[last:], left)
	i.at, i.size = f.block, int64(len(blocks))
	f.block += i.blocks()
	return f.put(i.at, blocks)
}

// grow lengthens an entry.
func grow(entry []byte, by int) {
	binary.LittleEndian.PutUint16(entry[4:], binary.LittleEndian.Uint16(entry[4:])+uint16(by))
}

func (i *inode) kind() byte {
	switch i.mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return typeDir
	case unix.S_IFLNK:
		return typeLink
	case unix.S_IFCHR:
		return typeChar
	case unix.S_IFBLK:
		return typeBlock
	case unix.S_IFIFO:
		return typeFIFO
	}
	return typeFile
}
