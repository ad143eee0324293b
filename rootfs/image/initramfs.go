// SPDX-License-Identifier: Apache-2.0

package image

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/casemate/casemate/rootfs/cpio"
)

// Compression is how an initial RAM file system is packed.
type Compression string

// The kernel unpacks all three; kata's own initrds are gzip.
const (
	Zstd Compression = "zstd"
	Gzip Compression = "gzip"
	None Compression = "none"
)

// WriteInitramfs writes the tree as a newc archive to w, which the caller closes. In front
// of a debug guest's stands another with its mark, not compressed.
func WriteInitramfs(w io.Writer, t *Tree, c Compression) error {
	if t.debug {
		if err := writeMark(cpio.NewWriter(w), t); err != nil {
			return err
		}
	}
	packed, err := compressor(w, c)
	if err != nil {
		return err
	}
	archive := cpio.NewWriter(packed)
	for _, e := range t.Entries() {
		if e.Path == DebugMark {
			continue
		}
		if err = archiveEntry(archive, e); err != nil {
			break
		}
	}
	return errors.Join(err, archive.Close(), packed.Close())
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// compressor writes neither a time nor a name, and works with one thread: where
// blocks end must not depend on the machine.
func compressor(w io.Writer, c Compression) (io.WriteCloser, error) {
	switch c {
	case Zstd:
		return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	case Gzip:
		return gzip.NewWriterLevel(w, gzip.BestCompression)
	case None:
		return nopCloser{w}, nil
	}
	return nil, fmt.Errorf("packing the archive: want zstd, gzip or none, got %q", c)
}

// sink takes the entries of a tree.
type sink interface {
	Dir(name string, perm uint32) error
	Symlink(name, target string) error
	CharDevice(name string, perm, major, minor uint32) error
	File(name string, perm uint32, size int64, r io.Reader) error
}

func archiveEntry(w sink, e Entry) error {
	switch e.Kind {
	case Directory:
		return w.Dir(e.Path, e.Perm)
	case Link:
		return w.Symlink(e.Path, e.Target)
	case CharDevice:
		return w.CharDevice(e.Path, e.Perm, e.Major, e.Minor)
	}
	r, size, err := e.open()
	if err != nil {
		return fmt.Errorf("adding %s: %w", e.Path, err)
	}
	return errors.Join(w.File(e.Path, e.Perm, size, r), r.Close())
}
