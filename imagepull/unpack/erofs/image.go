// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// ErrTooLarge says that the image would need blocks behind the 32 bits of their numbers, or 128 GiB of inodes.
var ErrTooLarge = errors.New("image is larger than 2 TiB")

const (
	maxImage   = 1 << 32 * BlockBytes
	maxMeta    = 1 << 32 * slotBytes
	pageBytes  = 4096
	writeBytes = 256 << 10 // how much metadata is collected before it is written
)

// File is where an image goes: an *os.File.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// writer is one call of Write.
type writer struct {
	file   File
	inodes uint64
	links  map[*Inode]struct{}

	sparse bool
	chunks int64 // end of the content of sparse files
	out    int64 // bytes of directories and targets that are not inline
	meta   int64 // bytes of inodes

	buf []byte
	at  int64 // where buf goes
}

// Write completes the image in f: the caller's data stands from HeadBytes to end, the inodes beneath root point into
// it. uuid names the filesystem; overlayfs wants them to differ. Inodes are changed and of no further use.
func Write(f File, end int64, root *Inode, uuid [16]byte) error {
	w := &writer{file: f, chunks: ceil(end, pageBytes), meta: inodeBytes} // nid 0 is for nobody: getdents(2) may hide it
	w.place(root)
	outStart := w.chunks
	metaStart := ceil(outStart+w.out, pageBytes)
	total := ceil(metaStart+w.meta, pageBytes)
	if total >= maxImage || w.meta >= maxMeta { // all ones is no block's number
		return ErrTooLarge
	}
	w.at = outStart
	if err := w.contents(root, root, outStart); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	w.at, w.inodes, w.links = metaStart, 0, nil
	if err := w.write(root, root, outStart, metaStart); err != nil {
		return err
	}
	if err := w.flush(); err != nil {
		return err
	}
	if err := f.Truncate(total); err != nil {
		return fmt.Errorf("setting the image's size: %w", err)
	}
	super := superblock{
		root: uint16(root.nid), inodes: w.inodes, blocks: uint32(total / BlockBytes),
		meta: uint32(metaStart / BlockBytes), uuid: uuid, chunked: w.sparse,
	}
	if _, err := f.WriteAt(super.encode(), superOffset); err != nil {
		return fmt.Errorf("writing superblock: %w", err)
	}
	return nil
}

func ceil(n, unit int64) int64 { return (n + unit - 1) &^ (unit - 1) }

// place gives the inode and, for a directory, all beneath it their places. Each inode is met first here; the passes
// that follow meet them in the same order.
func (w *writer) place(i *Inode) {
	if i.isDir() {
		i.sort()
		i.measure()
		i.Links = 2
	}
	if s := i.sparse(); s != nil {
		s.plan(i.Size, w.chunks)
		w.chunks = ceil(w.chunks+s.length, pageBytes)
		w.sparse = true
	}
	n := i.bytes()
	at := ceil(w.meta, inodeBytes)
	if i.inlined() && at%BlockBytes+n > BlockBytes {
		at = ceil(at, BlockBytes)
	}
	w.meta, i.nid = at+n, uint32(at/slotBytes)
	if c := i.content(); c > 0 && !i.inlined() {
		i.Extra.out = w.out
		w.out = ceil(w.out+c, BlockBytes)
	}
	if !i.isDir() {
		return
	}
	for _, e := range i.Extra.Entries {
		if e.Inode.isDir() {
			i.Links++
		}
		if e.Inode.nid == 0 {
			w.place(e.Inode)
		}
	}
}

// contents writes what is not inline, and the content of sparse files.
func (w *writer) contents(i, parent *Inode, start int64) error {
	if s := i.sparse(); s != nil {
		return s.copy(w.file)
	}
	if i.content() > 0 && !i.inlined() {
		if err := w.advance(start + i.Extra.out); err != nil {
			return err
		}
		if i.isDir() {
			w.buf = i.appendEntries(w.buf, parent)
		} else {
			w.buf = append(w.buf, i.Extra.Target...)
		}
	}
	return w.below(i, func(e Entry) error { return w.contents(e.Inode, i, start) })
}

// write writes the inodes.
func (w *writer) write(i, parent *Inode, outStart, metaStart int64) error {
	if err := w.advance(metaStart + int64(i.nid)*slotBytes); err != nil {
		return err
	}
	w.inodes++
	w.buf = i.encode(w.buf, uint32(w.inodes), outStart, parent)
	return w.below(i, func(e Entry) error { return w.write(e.Inode, i, outStart, metaStart) })
}

// below calls f for the directory's entries, for a hard link only where place has met it first.
func (w *writer) below(i *Inode, f func(Entry) error) error {
	if !i.isDir() {
		return nil
	}
	for _, e := range i.Extra.Entries {
		if !w.first(e.Inode) {
			continue
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// first reports whether the pass has not met the inode yet.
func (w *writer) first(i *Inode) bool {
	if i.Mode&unix.S_IFMT == unix.S_IFDIR || i.Links == 1 {
		return true
	}
	if _, met := w.links[i]; met {
		return false
	}
	if w.links == nil {
		w.links = map[*Inode]struct{}{}
	}
	w.links[i] = struct{}{}
	return true
}

// advance fills up with zeros to a place.
func (w *writer) advance(to int64) error {
	if len(w.buf) >= writeBytes {
		if err := w.flush(); err != nil {
			return err
		}
	}
	w.buf = append(w.buf, make([]byte, to-w.at-int64(len(w.buf)))...)
	return nil
}

func (w *writer) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	if _, err := w.file.WriteAt(w.buf, w.at); err != nil {
		return fmt.Errorf("writing metadata: %w", err)
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	return nil
}
