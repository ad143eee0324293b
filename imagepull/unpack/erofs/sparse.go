// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	// minChunkBits is the smallest chunk, a page.
	minChunkBits = 12
	// maxChunkBits is the largest that the format's five bits can say.
	maxChunkBits = blockBits + 31
	// fewChunks is how many chunks a file may have however few segments it has: a short archive that describes large
	// files must not become a long image.
	fewChunks = 4096
	// perSegment is how many chunks a segment brings beyond that.
	perSegment = 8
	copyBytes  = 128 << 10
)

// Segment is a run of content: length bytes that belong at offset.
type Segment struct {
	Offset, Length int64
}

// Sparse is a file of which only segments are stored, in a row from Data on, a place in the image. They ascend, do not
// overlap and lie within the file; none is empty. Write puts chunks with content behind the archive; a chunk without
// is a hole.
type Sparse struct {
	Segments []Segment
	Data     int64

	size   int64
	bits   int   // of a chunk's size
	chunks int64 // of the file
	begin  int64 // where the first chunk with content goes
	length int64 // of all of them together
}

// plan chooses the size of the chunks and places them from begin on.
func (s *Sparse) plan(size, begin int64) {
	s.size, s.begin = size, begin
	most := int64(1)
	if len(s.Segments) > 0 {
		most = fewChunks + perSegment*int64(len(s.Segments))
	}
	for s.bits = minChunkBits; s.bits < maxChunkBits && (size-1)>>s.bits+1 > most; s.bits++ {
	}
	s.chunks = (size-1)>>s.bits + 1
	s.length = 0
	s.each(func(chunk, at int64) { s.length = at - begin + s.chunkBytes(chunk) })
}

// chunkBytes is what a chunk with content takes: the file's last one ends with its last block.
func (s *Sparse) chunkBytes(chunk int64) int64 {
	return (min(1<<s.bits, s.size-chunk<<s.bits) + BlockBytes - 1) &^ (BlockBytes - 1)
}

// each calls f for every chunk with content, in order, with its place in the image.
func (s *Sparse) each(f func(chunk, at int64)) {
	at, last := s.begin, int64(-1)
	for _, seg := range s.Segments {
		for c := max(seg.Offset>>s.bits, last+1); c <= (seg.Offset+seg.Length-1)>>s.bits; c++ {
			f(c, at)
			at, last = at+s.chunkBytes(c), c
		}
	}
}

// appendMap appends the block number of each chunk, all ones for a hole.
func (s *Sparse) appendMap(b []byte) []byte {
	next := int64(0)
	holes := func(to int64) {
		for ; next < to; next++ {
			b = binary.LittleEndian.AppendUint32(b, ^uint32(0))
		}
	}
	s.each(func(chunk, at int64) {
		holes(chunk)
		b = binary.LittleEndian.AppendUint32(b, uint32(at/BlockBytes))
		next++
	})
	holes(s.chunks)
	return b
}

// copy moves the segments to their places. What is between them in a chunk is not written: it reads as zeros.
func (s *Sparse) copy(f File) error {
	if len(s.Segments) == 0 {
		return nil
	}
	buf := make([]byte, copyBytes)
	from, i := s.Data, 0
	var err error
	s.each(func(chunk, at int64) {
		start, end := chunk<<s.bits, (chunk+1)<<s.bits
		for ; err == nil && i < len(s.Segments); i++ {
			seg := s.Segments[i]
			lo, hi := max(seg.Offset, start), min(seg.Offset+seg.Length, end)
			if lo < hi {
				err = move(f, buf, at+lo-start, from+lo-seg.Offset, hi-lo)
			}
			if seg.Offset+seg.Length > end {
				return
			}
			from += seg.Length
		}
	})
	return err
}

func move(f File, buf []byte, to, from, n int64) error {
	for n > 0 {
		part := buf[:min(n, int64(len(buf)))]
		if _, err := io.ReadFull(io.NewSectionReader(f, from, int64(len(part))), part); err != nil {
			return fmt.Errorf("reading %d bytes at %d again: %w", len(part), from, err)
		}
		if _, err := f.WriteAt(part, to); err != nil {
			return fmt.Errorf("writing content of a sparse file: %w", err)
		}
		to, from, n = to+int64(len(part)), from+int64(len(part)), n-int64(len(part))
	}
	return nil
}
