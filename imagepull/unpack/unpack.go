// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
)

// What the caller may react to. Every error of Layer whose cause is the archive wraps one of these; any other
// error came from r, from ctx or from the kernel.
var (
	ErrFormat    = errors.New("malformed archive")         // damaged, contradictory or unsupported headers
	ErrTruncated = errors.New("truncated archive")         // the stream ends inside an entry or without end-of-archive
	ErrTrailing  = errors.New("data after end of archive") // non-zero bytes behind the end-of-archive marker
	ErrEscape    = errors.New("unsafe path in archive")    // a name or link that points out of the directory
	ErrLimit     = errors.New("archive exceeds limit")     // one of Limits
)

// Limits bounds what one archive may ask for. A zero or negative field means its default, never "unlimited".
type Limits struct {
	Entries     int   // header blocks, extension headers included; default 2 Mi (the largest images have 0.5 Mi files)
	StreamBytes int64 // bytes of the stream, headers and padding included; default 256 GiB
	FileBytes   int64 // size of one file, holes included; default 256 GiB
	Depth       int   // directories between the root and an entry; default 256
	MemoryBytes int64 // what is kept until the end, directories and their attributes; default 128 MiB (0.5 Mi directories)
}

// withDefaults fills in the defaults.
func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = 2 << 20
	}
	if l.StreamBytes <= 0 {
		l.StreamBytes = 256 << 30
	}
	if l.FileBytes <= 0 {
		l.FileBytes = 256 << 30
	}
	if l.Depth <= 0 {
		l.Depth = 256
	}
	if l.MemoryBytes <= 0 {
		l.MemoryBytes = 128 << 20
	}
	return l
}

// Stats says what Layer read and wrote. After an error it covers the entries before it.
type Stats struct {
	Entries     int   // header blocks, extension headers included
	Bytes       int64 // file content written, without holes
	StreamBytes int64 // the whole stream
	Whiteouts   int   // 0:0 devices written
	// RootOpaque is set when the layer hides everything below it. overlayfs ignores the mark on the root of a
	// layer: the caller has to leave out the lower layers.
	RootOpaque bool
	// SkippedXattrs counts, by name, attributes that the filesystem cannot hold. At most 64 names.
	SkippedXattrs map[string]int
	// ImpliedDirs are the directories, sorted, "." for the root, that have entries below them and none of their own.
	ImpliedDirs []string
}

// Layer reads r to its end as a tar stream and writes it beneath the existing empty directory dir. dir must be on a
// filesystem that holds trusted.* attributes and is written by nobody else meanwhile; making owners, devices and
// whiteouts takes root (CAP_CHOWN, CAP_MKNOD, CAP_SYS_ADMIN and those that pass file permissions).
//
// r is read until it reports io.EOF, so verifiers that speak only there are heard; any other error of it, also one that
// wraps io.EOF, is returned wrapped.
// On an error the caller removes dir: what is in it is incomplete and unproved. Nothing is synced to disk.
func Layer(ctx context.Context, dir string, r io.Reader, lim Limits) (Stats, error) {
	w := newWriter(ctx, r, lim.withDefaults(), bufferSize)
	d, err := openDisk(dir, w)
	if err != nil {
		return Stats{}, err
	}
	defer d.close()
	w.tree.sink = d
	err = w.run()
	return w.stats, err
}

// writer is one call of Layer or Image.
type writer struct {
	ctx   context.Context
	lim   Limits
	in    *stream
	tree  *tree
	stats Stats

	// What each entry is read into.
	header    header
	item      entry
	noRecords paxRecords // for those without; nobody writes to it
	pax       []byte     // body of the last pax header; entry.xattrs point into it
}

func newWriter(ctx context.Context, r io.Reader, lim Limits, buffer int) *writer {
	return &writer{ctx: ctx, lim: lim, tree: newTree(lim), in: newStream(r, lim.StreamBytes, buffer)}
}

// run reads entry after entry, then the end of the stream, then settles the directories.
func (w *writer) run() error {
	defer func() {
		w.stats.StreamBytes = w.in.off
		w.stats.RootOpaque = w.tree.root.opaque
	}()
	for {
		e, err := w.next()
		if err != nil {
			return fmt.Errorf("reading header %d: %w", w.stats.Entries, err)
		}
		if e == nil {
			break
		}
		if err := w.entry(e); err != nil {
			return fmt.Errorf("unpacking %s (header %d): %w", quote(e.name), w.stats.Entries, err)
		}
	}
	if err := w.in.drainZeros(w.ctx); err != nil {
		return fmt.Errorf("reading to end of stream: %w", err)
	}
	if err := w.finish(w.tree.root); err != nil {
		return err
	}
	sort.Strings(w.stats.ImpliedDirs)
	return nil
}

// quote makes a hostile name fit for a message.
func quote(name string) string {
	const most = 160
	if len(name) > most {
		return strconv.Quote(name[:most]) + "..."
	}
	return strconv.Quote(name)
}
