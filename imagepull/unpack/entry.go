// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// entry is one member of the archive, all its headers joined.
type entry struct {
	kind     byte // typeFile, typeHardLink, typeSymlink, typeChar, typeBlock, typeDir or typeFIFO
	name     string
	link     string
	mode     uint32 // permission, setuid, setgid and sticky bits
	uid, gid uint32
	mtime    unix.Timespec
	major    uint32
	minor    uint32
	size     int64     // content bytes in the stream
	realSize int64     // bytes of the file: size, or more with holes
	sparse   []segment // nil: the content is the file
	xattrs   []xattr   // values are valid until the next entry
}

// extensions are the headers before an entry that speak of it.
type extensions struct {
	pax              *paxRecords
	longName, longTo *string // GNU 'L' and 'K'
}

func (x *extensions) any() bool { return x.pax != nil || x.longName != nil || x.longTo != nil }

// next reads headers up to and including that of the next entry, which it returns until it is called again. No entry and no error says that the end-of-archive
// marker comes next: one block of zeros is enough, as some writers leave it at that.
func (w *writer) next() (*entry, error) {
	var x extensions
	var zero [blockSize]byte
	for {
		if err := w.ctx.Err(); err != nil {
			return nil, err
		}
		block, err := w.in.peek(blockSize)
		if errors.Is(err, errEnd) {
			return nil, fmt.Errorf("%w: no end-of-archive marker at offset %d", ErrTruncated, w.in.off)
		}
		if err != nil {
			return nil, err
		}
		if block[0] == 0 && bytes.Equal(block, zero[:]) {
			if x.any() {
				return nil, fmt.Errorf("%w: extension header without an entry", ErrFormat)
			}
			return nil, nil
		}
		if w.stats.Entries == w.lim.Entries {
			return nil, fmt.Errorf("%w: more than %d headers", ErrLimit, w.lim.Entries)
		}
		w.stats.Entries++
		h := &w.header
		if err := h.parse(block); err != nil {
			return nil, err
		}
		switch h.kind() {
		case typePax, typePaxGlobal, typeGNUName, typeGNULink:
			if err := w.extension(h.kind(), h.size, &x); err != nil {
				return nil, err
			}
		default:
			return w.build(h, &x)
		}
	}
}

// extension reads one extension header and its body into x.
func (w *writer) extension(kind byte, size int64, x *extensions) (err error) {
	if size > maxExtension {
		return fmt.Errorf("%w: extension header %q of %d bytes, at most %d", ErrLimit, kind, size, maxExtension)
	}
	w.in.consume(blockSize)
	switch {
	case kind == typePaxGlobal && x.any(),
		kind == typePax && x.pax != nil,
		kind == typeGNUName && x.longName != nil,
		kind == typeGNULink && x.longTo != nil:
		return fmt.Errorf("%w: extension header %q follows another", ErrFormat, kind)
	}
	var body []byte
	if kind == typePax {
		body = w.pax[:0]
	}
	if body, err = w.in.append(body, size); err != nil {
		return err
	}
	switch kind {
	case typePaxGlobal:
		return checkGlobal(body)
	case typePax:
		w.pax = body
		x.pax, err = parsePax(body)
		return err
	case typeGNUName:
		x.longName, err = gnuText(body)
		return err
	default:
		x.longTo, err = gnuText(body)
		return err
	}
}

// gnuText is the body of a GNU long name: one string with NULs behind it.
func gnuText(body []byte) (*string, error) {
	s := string(bytes.TrimRight(body, "\x00"))
	if s == "" || strings.IndexByte(s, 0) >= 0 {
		return nil, fmt.Errorf("%w: GNU long name is empty or holds a NUL", ErrFormat)
	}
	return &s, nil
}

// build makes the entry of header h and the extensions before it, and consumes h.
func (w *writer) build(h *header, x *extensions) (*entry, error) {
	w.item = entry{kind: h.kind()}
	e := &w.item
	pax := x.pax
	if pax == nil {
		pax = &w.noRecords
	}
	if err := e.setNames(h, x, pax); err != nil {
		return e, err
	}
	if err := e.setKind(h.dialect); err != nil {
		return e, err
	}
	if err := e.setSize(h, pax); err != nil {
		return e, err
	}
	if err := e.setAttributes(h, pax); err != nil {
		return e, err
	}
	if err := e.setDevice(h); err != nil {
		return e, err
	}
	e.xattrs = pax.xattrs
	w.in.consume(blockSize) // h stays readable until the next read
	if h.kind() == typeGNUSparse {
		if err := w.gnuSparse(h.raw, e); err != nil {
			return e, err
		}
	}
	if pax.sparse.present() {
		if err := w.paxSparse(&pax.sparse, e); err != nil {
			return e, err
		}
	}
	if e.realSize > w.lim.FileBytes {
		return e, fmt.Errorf("%w: file of %d bytes, at most %d", ErrLimit, e.realSize, w.lim.FileBytes)
	}
	return e, nil
}

// setNames picks name and link target: a pax record, a GNU long name, or the header's own. Two of the first kinds
// at once are read differently by different readers.
func (e *entry) setNames(h *header, x *extensions, pax *paxRecords) error {
	if x.longName != nil && (pax.path != nil || pax.sparse.name != nil) || x.longTo != nil && pax.linkpath != nil {
		return fmt.Errorf("%w: both a pax record and a GNU long name give the path", ErrFormat)
	}
	switch {
	case pax.sparse.name != nil: // the header's name and the path record are then a temporary one
		e.name = *pax.sparse.name
	case pax.path != nil:
		e.name = *pax.path
	case x.longName != nil:
		e.name = *x.longName
	default:
		e.name = h.name()
	}
	switch {
	case pax.linkpath != nil:
		e.link = *pax.linkpath
	case x.longTo != nil:
		e.link = *x.longTo
	default:
		e.link = text(h.raw[157:257])
	}
	return nil
}

// setKind folds the spellings of a type into one.
func (e *entry) setKind(d dialect) error {
	slash := strings.HasSuffix(e.name, "/")
	switch e.kind {
	case typeOldFile:
		e.kind = typeFile
		if slash { // v7 has no type for directories
			e.kind = typeDir
		}
		return nil
	case typeGNUSparse:
		if d != dialectGNU {
			return fmt.Errorf("%w: GNU sparse entry without GNU's magic", ErrFormat)
		}
		e.kind = typeFile
	case typeContiguous:
		e.kind = typeFile
	case typeFile, typeHardLink, typeSymlink, typeChar, typeBlock, typeDir, typeFIFO:
	default:
		return fmt.Errorf("%w: unsupported entry type %q", ErrFormat, e.kind)
	}
	if slash && e.kind == typeFile {
		// A directory to some readers, a file to others.
		return fmt.Errorf("%w: regular file with a directory's name", ErrFormat)
	}
	return nil
}

// setSize takes the size that every reader agrees on. A pax record may differ from the header only where the header's
// 11 octal digits cannot hold it; writers then put 0 or the largest number there.
func (e *entry) setSize(h *header, pax *paxRecords) error {
	const most = 1<<33 - 1
	size := h.size
	if pax.size != nil && *pax.size != size {
		if *pax.size <= most || size != 0 && size != most {
			return fmt.Errorf("%w: size is %d in the pax record, %d in the header", ErrFormat, *pax.size, size)
		}
		size = *pax.size
	}
	if size != 0 && e.kind != typeFile {
		return fmt.Errorf("%w: entry of type %q with %d bytes of content", ErrFormat, e.kind, size)
	}
	e.size, e.realSize = size, size
	return nil
}

func (e *entry) setAttributes(h *header, pax *paxRecords) (err error) {
	e.mode = uint32(h.mode) & 0o7777 // some writers add the type bits of stat
	e.mtime.Sec = h.mtime
	if pax.mtime != nil {
		e.mtime = *pax.mtime
	}
	if e.uid, err = owner("uid", h.uid, pax.uid); err != nil {
		return err
	}
	e.gid, err = owner("gid", h.gid, pax.gid)
	return err
}

// setDevice takes the device numbers.
func (e *entry) setDevice(h *header) error {
	if e.kind != typeChar && e.kind != typeBlock {
		return nil
	}
	if h.major < 0 || h.minor < 0 || h.major >= 1<<12 || h.minor >= 1<<20 { // the kernel's dev_t
		return fmt.Errorf("%w: device %d:%d", ErrFormat, h.major, h.minor)
	}
	if e.kind == typeChar && h.major == 0 && h.minor == 0 {
		return fmt.Errorf("%w: character device 0:0, which overlayfs takes for a whiteout", ErrFormat)
	}
	e.major, e.minor = uint32(h.major), uint32(h.minor)
	return nil
}

// owner is a numeric id, of the pax record or else of the header. The kernel reads 2^32-1 as "leave it".
func owner(what string, id int64, pax *int64) (uint32, error) {
	if pax != nil {
		id = *pax
	}
	if id >= 1<<32-1 {
		return 0, fmt.Errorf("%w: %s %d is out of range", ErrFormat, what, id)
	}
	return uint32(id), nil
}

// typeBits is the kind of an entry as stat(2) has it.
func typeBits(kind byte) uint32 {
	switch kind {
	case typeSymlink:
		return unix.S_IFLNK
	case typeChar:
		return unix.S_IFCHR
	case typeBlock:
		return unix.S_IFBLK
	case typeFIFO:
		return unix.S_IFIFO
	}
	return unix.S_IFREG
}
