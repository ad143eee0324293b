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

	// MaxFile is the largest file in bytes: the four extents that an inode has room for.
	MaxFile = maxExtents * extentBlocks * BlockSize

	maxExtents   = 4
	extentBlocks = 1 << 15 // of an extent that is written
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
}

// inode is a file of any kind.
type inode struct {
	number       uint32
	mode         uint32
	size, at     int64 // in bytes; the first block
	target       string
	major, minor uint32
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

// CharDevice adds a node of a character device. Both numbers are below 256.
func (f *Writer) CharDevice(name string, perm, major, minor uint32) error {
	if f.err == nil && (major > 255 || minor > 255) {
		f.err = fmt.Errorf("adding %s: device %d:%d, want numbers below 256", name, major, minor)
	}
	return f.add(name, &inode{mode: unix.S_IFCHR | perm, major: major, minor: minor})
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
	if f.err != nil {
		return f.err
	}
	base := path.Base(name)
	switch {
	case !path.IsAbs(name) || path.Clean(name) != name || len(base) > maxName || strings.ContainsRune(name, 0) || f.names[name] != nil:
		f.err = fmt.Errorf("adding %q: %w", name, ErrName)
	case len(f.inodes) >= maxInodes:
		f.err = fmt.Errorf("adding %q: over %d files", name, maxInodes)
	}
	parent := path.Dir(name)
	if f.err == nil && f.names[parent] == nil {
		f.err = f.Dir(parent, dirPerm)
	}
	if f.err == nil && !f.names[parent].isDir() {
		f.err = fmt.Errorf("adding %q: %s is no directory", name, parent)
	}
	if f.err != nil {
		return f.err
	}
	i.parent, i.number = f.names[parent], firstInode+uint32(len(f.inodes))
	i.parent.children = append(i.parent.children, child{base, i})
	f.inodes = append(f.inodes, i)
	f.names[name] = i
	return nil
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
	return f.err
}
