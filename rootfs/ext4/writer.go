// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// BlockSize is in bytes, as that of dm-verity.
	BlockSize = 4096

	// MaxFile is more bytes than an image has room for in one file.
	MaxFile = maxGroups * groupBlocks * BlockSize

	maxExtents   = 4                // that an inode has room for
	leafExtents  = BlockSize/12 - 1 // that a block of them has
	extentBlocks = 1 << 15          // of an extent that is written
	maxName      = 255
	maxInodes    = 1 << 18
	dirPerm      = 0o755

	rootInode  = 2
	firstInode = 11 // of those that a file system may use as it likes
	firstData  = 2  // block; before it are the superblock and the groups' descriptors
)

// ErrName is what a name that is not new, absolute and clean gives.
var ErrName = errors.New("no new absolute name")

// Writer writes a file system. Directories above an entry are added when they are first
// needed, with mode 0755. After an error only Close is of use, and it returns that error.
type Writer struct {
	w      io.WriterAt
	data   hash.Hash // of everything that is written before the superblock
	block  int64     // the next that is free
	inodes []*inode  // from firstInode on
	root   *inode
	names  map[string]*inode
	err    error
	xattrs bool // some file has one
}

// inode is a file of any kind.
type inode struct {
	number       uint32
	mode         uint32
	size, at     int64 // in bytes; the first block
	leaf         int64 // block with the extents, where the inode has no room for them
	target       string
	major, minor uint32
	uid, gid     uint32
	modified     int64
	capability   []byte
	names        int // beyond the first
	subdirs      int
	parent       *inode
	children     []child // of a directory, in the order of their names' arrival
}

type child struct {
	name string
	*inode
}

func (i *inode) isDir() bool   { return i.mode&unix.S_IFMT == unix.S_IFDIR }
func (i *inode) blocks() int64 { return (i.size + BlockSize - 1) / BlockSize }

// NewWriter writes to w, which holds nothing yet and which the caller closes after Close.
func NewWriter(w io.WriterAt) *Writer {
	f := &Writer{w: w, data: sha256.New(), block: firstData, names: make(map[string]*inode)}
	f.root = &inode{number: rootInode, mode: unix.S_IFDIR | dirPerm}
	f.root.parent = f.root
	f.names["/"] = f.root
	// Whoever repairs a file system looks for it, and e2fsck wants it to be the first.
	f.err = f.add("/lost+found", &inode{mode: unix.S_IFDIR | 0o700})
	return f
}

// Dir adds a directory.
func (f *Writer) Dir(name string, perm uint32) error {
	return f.add(name, &inode{mode: unix.S_IFDIR | perm})
}

// Symlink adds a symbolic link. A target has 1 to 4095 bytes.
func (f *Writer) Symlink(name, target string) error {
	if f.err == nil && (target == "" || len(target) >= BlockSize) {
		f.err = fmt.Errorf("adding %s: a link to %d bytes", name, len(target))
	}
	i := &inode{mode: unix.S_IFLNK | 0o777, size: int64(len(target)), target: target}
	if err := f.add(name, i); err != nil || i.fast() {
		return err
	}
	return f.content(name, i, strings.NewReader(target))
}

// fast says that a link's target lies in the inode.
func (i *inode) fast() bool { return i.target != "" && len(i.target) < inodeBlockBytes }

// CharDevice adds a node of a character device, with numbers as BlockDevice takes them.
func (f *Writer) CharDevice(name string, perm, major, minor uint32) error {
	return f.device(name, unix.S_IFCHR|perm, major, minor)
}

// File adds a regular file of size bytes from r.
func (f *Writer) File(name string, perm uint32, size int64, r io.Reader) error {
	if f.err == nil && (size < 0 || size > MaxFile) {
		f.err = fmt.Errorf("adding %s: %d bytes, at most %d have room", name, size, int64(MaxFile))
	}
	i := &inode{mode: unix.S_IFREG | perm, size: size}
	if err := f.add(name, i); err != nil {
		return err
	}
	return f.content(name, i, r)
}

func (f *Writer) add(name string, i *inode) error {
	if f.err == nil && len(f.inodes) >= maxInodes {
		f.err = fmt.Errorf("adding %q: over %d files", name, maxInodes)
	}
	parent, base, err := f.place(name)
	if err != nil {
		return err
	}
	if i.isDir() && parent.links() >= maxLinks {
		f.err = fmt.Errorf("adding %q: over %d directories in one", name, maxLinks)
		return f.err
	}
	if i.isDir() {
		parent.subdirs++
	}
	i.parent, i.number = parent, firstInode+uint32(len(f.inodes))
	parent.children = append(parent.children, child{base, i})
	f.inodes = append(f.inodes, i)
	f.names[name] = i
	return nil
}

// place finds the directory for a new name, and makes it.
func (f *Writer) place(name string) (parent *inode, base string, err error) {
	base = path.Base(name)
	if f.err == nil && (!path.IsAbs(name) || path.Clean(name) != name || len(base) > maxName || strings.ContainsRune(name, 0) || f.names[name] != nil) {
		f.err = fmt.Errorf("adding %q: %w", name, ErrName)
	}
	dir := path.Dir(name)
	if f.err == nil && f.names[dir] == nil {
		f.err = f.Dir(dir, dirPerm)
	}
	if f.err == nil && !f.names[dir].isDir() {
		f.err = fmt.Errorf("adding %q: %s is no directory", name, dir)
	}
	return f.names[dir], base, f.err
}

// content writes what lies in blocks of its own.
func (f *Writer) content(name string, i *inode, r io.Reader) error {
	i.at = f.block
	n, err := io.Copy(io.MultiWriter(io.NewOffsetWriter(f.w, i.at*BlockSize), f.data), io.LimitReader(r, i.size))
	if err == nil && n != i.size {
		err = fmt.Errorf("got %d bytes, want %d", n, i.size)
	}
	if err != nil {
		f.err = fmt.Errorf("adding %s: %w", name, err)
	}
	f.block += i.blocks()
	if f.err == nil && i.extents() > maxExtents {
		i.leaf = f.block
		f.block++
		f.err = f.put(i.leaf, i.extentBlock())
	}
	return f.err
}
