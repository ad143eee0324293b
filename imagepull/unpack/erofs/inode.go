// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	inodeBytes = 64 // struct erofs_inode_extended
	slotBytes  = 32 // unit of nids

	layoutPlain  = 0 // EROFS_INODE_FLAT_PLAIN: blocks in a row
	layoutInline = 2 // EROFS_INODE_FLAT_INLINE: the last part stands behind the inode; here, all of it
	layoutChunks = 4 // EROFS_INODE_CHUNK_BASED
)

// Inode is a file of any kind. Names that are hard links share one.
type Inode struct {
	Mode     uint32 // as in stat(2): kind and permissions
	UID, GID uint32
	Links    uint32 // for a directory Write sets it
	Nsec     uint32
	nid      uint32 // place in slots from the metadata's begin; 0 until Write knows it
	Sec      int64  // modification time, seconds since 1970
	// Size and Data are a regular file's: bytes of content, and where in the image they begin, a multiple of
	// BlockBytes. Data is without meaning for an empty or sparse file.
	Size, Data int64
	Dev        uint64 // of a device, as unix.Mkdev makes it
	Extra      *Extra // nil without any of it
}

// Extra is what few inodes have.
type Extra struct {
	Target  string  // of a symbolic link
	Xattrs  []Xattr // each name once
	Entries []Entry // of a directory, without "." and ".."; Write sorts them
	Sparse  *Sparse // of a regular file with holes

	out    int64 // where content that is not inline stands, from the begin of its area
	length int64 // of a directory's content
}

func (i *Inode) isDir() bool { return i.Mode&unix.S_IFMT == unix.S_IFDIR }

// content is how many bytes of its own the metadata has to hold: a directory's entries, a link's target.
func (i *Inode) content() int64 {
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return i.Extra.length
	case unix.S_IFLNK:
		return int64(len(i.Extra.Target))
	}
	return 0
}

// inlined reports whether the content stands behind the inode. The kernel wants it within one block, so the inode
// with all that follows has to fit into one. A zero byte ends the last name of a directory.
func (i *Inode) inlined() bool {
	n := i.content()
	return n > 0 && inodeBytes+i.xattrBytes()+n+1 <= BlockBytes
}

// bytes is what the inode takes among the metadata.
func (i *Inode) bytes() int64 {
	n := inodeBytes + i.xattrBytes()
	if i.inlined() {
		n += i.content() + 1
	}
	if s := i.sparse(); s != nil {
		n += 4 * s.chunks
	}
	return n
}

func (i *Inode) sparse() *Sparse {
	if i.Extra == nil {
		return nil
	}
	return i.Extra.Sparse
}

func (i *Inode) xattrBytes() int64 {
	if i.Extra == nil {
		return 0
	}
	return xattrBytes(i.Extra.Xattrs)
}

// encode appends the inode, number ino, its attributes and what is inline. out is the begin of the area of other
// content, in bytes, parent a directory's parent.
func (i *Inode) encode(b []byte, ino uint32, out int64, parent *Inode) []byte {
	le := binary.LittleEndian
	layout, size, where := uint16(layoutPlain), i.Size, uint32(0)
	switch i.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		switch s := i.sparse(); {
		case s != nil:
			layout, where = layoutChunks, uint32(s.bits-blockBits)
		case size > 0:
			where = uint32(i.Data / BlockBytes)
		}
	case unix.S_IFDIR, unix.S_IFLNK:
		if size = i.content(); i.inlined() {
			layout = layoutInline
		} else {
			where = uint32((out + i.Extra.out) / BlockBytes)
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		where = kernelDev(i.Dev)
	}
	attributes := i.xattrBytes()
	b = le.AppendUint16(b, 1|layout<<1) // 1: the extended form
	b = le.AppendUint16(b, xattrCount(attributes))
	b = le.AppendUint16(b, uint16(i.Mode))
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(size))
	b = le.AppendUint32(b, where)
	b = le.AppendUint32(b, ino)
	b = le.AppendUint32(b, i.UID)
	b = le.AppendUint32(b, i.GID)
	b = le.AppendUint64(b, uint64(i.Sec))
	b = le.AppendUint32(b, i.Nsec)
	b = le.AppendUint32(b, i.Links)
	b = append(b, make([]byte, 16)...)
	if attributes > 0 {
		b = appendXattrs(b, i.Extra.Xattrs)
	}
	switch {
	case layout == layoutInline && i.isDir():
		b = i.appendEntries(b, parent)
	case layout == layoutInline:
		b = append(b, i.Extra.Target...)
	case layout == layoutChunks:
		b = i.Extra.Sparse.appendMap(b)
	}
	return b
}

// kernelDev is the kernel's 32-bit form of a device number (new_encode_dev).
func kernelDev(dev uint64) uint32 {
	major, minor := unix.Major(dev), unix.Minor(dev)
	return minor&0xff | major<<8 | minor&^0xff<<12
}
