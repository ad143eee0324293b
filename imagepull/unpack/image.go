// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/unpack/erofs"
)

const (
	// fileBytes is about what one entry of an image costs in memory until the end, without its name.
	fileBytes = 160
	// imageBuffer is what is read and written at once.
	imageBuffer = 128 << 10
	// imageMemory is the default of Limits.MemoryBytes for Image, whose every entry is kept: about 1.4 Mi.
	imageMemory = 256 << 20
)

// inode is what an image has under a name: anything but a directory.
type inode = erofs.Inode

// image is the sink that keeps the archive as it is, in one file, and makes a filesystem whose files lie in it.
type image struct {
	w    *writer
	file erofs.File
}

// Image reads r to its end as Layer does and makes of it one EROFS image in f, which is empty: the stream itself, byte
// for byte but for filler behind content, and a filesystem over it. Mounted, that has the tree that Layer writes; only
// the times of whiteouts differ. uuid names the filesystem. It takes no rights. MemoryBytes counts every entry here,
// 160 bytes and its name each; its default is 256 MiB.
//
// Filler is made zeros, because the kernel maps it into memory with the end of a file.
//
// An attribute outside user.*, trusted.*, security.* and POSIX ACLs counts as one that the filesystem cannot hold. An
// attribute of 64 KiB, or 256 KiB of them on one file, is ErrLimit.
//
// On an error the caller removes f. Nothing is synced to disk.
func Image(ctx context.Context, f erofs.File, r io.Reader, uuid [16]byte, lim Limits) (Stats, error) {
	if lim.MemoryBytes <= 0 {
		lim.MemoryBytes = imageMemory
	}
	w := newWriter(ctx, &recorder{r: r, f: f, off: erofs.HeadBytes}, lim.withDefaults(), imageBuffer)
	w.tree.sink = &image{w: w, file: f}
	if err := w.run(); err != nil {
		return w.stats, err
	}
	err := erofs.Write(f, erofs.HeadBytes+w.in.off, w.tree.root.made, uuid)
	if errors.Is(err, erofs.ErrTooLarge) {
		err = fmt.Errorf("%w: %w", ErrLimit, err)
	}
	if err != nil {
		return w.stats, fmt.Errorf("completing the image: %w", err)
	}
	return w.stats, nil
}

// recorder keeps in f what is read from r.
type recorder struct {
	r   io.Reader
	f   erofs.File
	off int64
}

func (c *recorder) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		if _, werr := c.f.WriteAt(p[:n], c.off); werr != nil {
			return 0, fmt.Errorf("keeping the archive: %w", werr)
		}
		c.off += int64(n)
	}
	return n, err
}

func (m *image) lookup(parent *node, name string) (found, error) {
	if m.w.tree.dirs[place{parent, name}] != nil {
		return foundDir, nil
	}
	i := parent.files[name]
	switch {
	case i == nil:
		return foundNothing, nil
	case i.Mode&unix.S_IFMT == unix.S_IFLNK:
		return foundSymlink, nil
	case i.Mode&unix.S_IFMT == unix.S_IFCHR && i.Dev == 0:
		return foundWhiteout, nil
	}
	return foundOther, nil
}

// taken reports whether parent has the name.
func (m *image) taken(parent *node, name string) bool {
	return parent.files[name] != nil || m.w.tree.dirs[place{parent, name}] != nil
}

func (m *image) readlink(parent *node, name string) (string, error) {
	return parent.files[name].Extra.Target, nil
}

func (m *image) mkdir(parent *node, name string) error {
	if m.taken(parent, name) {
		return unix.EEXIST
	}
	return nil
}

func (m *image) make(parent *node, name string, e *entry) error {
	if m.taken(parent, name) {
		return unix.EEXIST
	}
	i := &inode{
		Mode: typeBits(e.kind) | e.mode, UID: e.uid, GID: e.gid, Links: 1, Sec: e.mtime.Sec, Nsec: uint32(e.mtime.Nsec),
	}
	switch e.kind {
	case typeSymlink:
		i.Mode = unix.S_IFLNK | 0o777
		i.Extra = &erofs.Extra{Target: strings.Clone(e.link)}
	case typeChar, typeBlock:
		i.Dev = unix.Mkdev(e.major, e.minor)
	case typeFile:
		if err := m.content(i, e); err != nil {
			return err
		}
	}
	if err := m.attributes(i, e.xattrs); err != nil {
		return err
	}
	return m.add(parent, name, i, extraBytes(i))
}

// add gives an inode a name and charges n bytes for what it holds besides.
func (m *image) add(parent *node, name string, i *inode, n int) error {
	if err := m.w.tree.charge(fileBytes + len(name) + n); err != nil {
		return err
	}
	if parent.files == nil {
		parent.files = map[string]*inode{}
	}
	parent.files[strings.Clone(name)] = i
	return nil
}

// extraBytes is what an inode holds besides itself.
func extraBytes(i *inode) int {
	if i.Extra == nil {
		return 0
	}
	n := 128 + len(i.Extra.Target)
	for _, x := range i.Extra.Xattrs {
		n += 64 + len(x.Name) + len(x.Value)
	}
	if s := i.Extra.Sparse; s != nil {
		n += 64 + 16*len(s.Segments)
	}
	return n
}

// content notes where the entry's content is and passes over it.
func (m *image) content(i *inode, e *entry) error {
	i.Size, i.Data = e.realSize, erofs.HeadBytes+m.w.in.off
	if i.Data%blockSize != 0 {
		return fmt.Errorf("%w: content at offset %d, which is no block's", ErrFormat, m.w.in.off)
	}
	if e.sparse != nil && e.realSize > 0 {
		i.Extra = &erofs.Extra{Sparse: &erofs.Sparse{Data: i.Data}}
		for _, s := range e.sparse {
			if s.length > 0 {
				i.Extra.Sparse.Segments = append(i.Extra.Sparse.Segments, erofs.Segment{Offset: s.offset, Length: s.length})
			}
		}
	}
	size := e.size
	if err := m.w.take(e, size, func([]byte) error { return nil }); err != nil {
		return err
	}
	return m.blank(int(-size & (blockSize - 1)))
}

// blank makes the next n bytes of the stream zeros in the file. That they are there is for the reader to find out.
func (m *image) blank(n int) error {
	filler, err := m.w.in.peek(n)
	if err != nil || allZero(filler) {
		return nil //nolint:nilerr // the caller reads them next
	}
	if _, err := m.file.WriteAt(make([]byte, n), erofs.HeadBytes+m.w.in.off); err != nil {
		return fmt.Errorf("clearing filler: %w", err)
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func (m *image) link(from *node, last string, parent *node, name string) error {
	if m.taken(parent, name) {
		return unix.EEXIST
	}
	i := from.files[last]
	i.Links++
	return m.add(parent, name, i, 0)
}

func (m *image) whiteout(parent *node, name string) error {
	if m.taken(parent, name) {
		return unix.EEXIST
	}
	return m.add(parent, name, &inode{Mode: unix.S_IFCHR, Links: 1}, 0)
}

func (m *image) unlink(parent *node, name string) error {
	m.drop(name, parent.files[name])
	delete(parent.files, name)
	return nil
}

// drop takes one name off an inode and gives back what it cost.
func (m *image) drop(name string, i *inode) {
	m.w.tree.spare += int64(fileBytes + len(name))
	if i.Links--; i.Links == 0 {
		m.w.tree.spare += int64(extraBytes(i))
	}
}

func (m *image) removeTree(n *node) error {
	for name, i := range n.files {
		m.drop(name, i)
	}
	for c := n.first; c != nil; c = c.next {
		if err := m.removeTree(c); err != nil {
			return err
		}
	}
	return nil
}

func (m *image) forget(*node) {}
