// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"fmt"
)

// maxSegments bounds the map of one sparse file, 16 bytes each in memory.
const maxSegments = 128 << 10

// segment is a run of content in a sparse file; the rest is holes.
type segment struct {
	offset, length int64
}

// checkSegments makes sure of what the writer relies on: segments ascend, do not overlap, lie within size, and
// have data bytes together.
func checkSegments(segments []segment, size, data int64) error {
	end, sum := int64(0), int64(0)
	for _, s := range segments {
		if s.offset < end || s.length > size-s.offset {
			return fmt.Errorf("%w: sparse segment %d+%d after %d in a file of %d bytes", ErrFormat, s.offset, s.length, end, size)
		}
		end = s.offset + s.length
		sum += s.length // at most size
	}
	if sum != data {
		return fmt.Errorf("%w: sparse segments have %d bytes, the entry has %d", ErrFormat, sum, data)
	}
	return nil
}

// gnuSparse reads the map of an old GNU sparse entry: 4 segments in its header, then 21 in each extension block. The
// size of the entry counts the content only.
func (w *writer) gnuSparse(h []byte, e *entry) error {
	var err error
	if e.realSize, err = natural("real size", h[483:495]); err != nil {
		return err
	}
	e.sparse = []segment{}
	more, err := e.addSegments(h[386:482], h[482])
	for ; more && err == nil; more, err = e.addBlock(w.in) {
		if len(e.sparse) > maxSegments {
			return fmt.Errorf("%w: more than %d sparse segments", ErrLimit, maxSegments)
		}
	}
	if err != nil {
		return err
	}
	return checkSegments(e.sparse, e.realSize, e.size)
}

// addBlock reads one extension block of an old GNU sparse map.
func (e *entry) addBlock(in *stream) (more bool, err error) {
	block, err := in.peek(blockSize)
	if err != nil {
		return false, inEntry(err, blockSize)
	}
	more, err = e.addSegments(block[:504], block[504])
	in.consume(blockSize)
	return more, err
}

// addSegments reads pairs of 12-byte numbers up to the first empty one. more is the flag behind them.
func (e *entry) addSegments(pairs []byte, flag byte) (more bool, err error) {
	for ; len(pairs) > 0 && pairs[0] != 0; pairs = pairs[24:] {
		offset, err := natural("sparse offset", pairs[:12])
		if err != nil {
			return false, err
		}
		length, err := natural("sparse length", pairs[12:24])
		if err != nil {
			return false, err
		}
		e.sparse = append(e.sparse, segment{offset, length})
	}
	if flag > 1 {
		return false, fmt.Errorf("%w: sparse extension flag %d", ErrFormat, flag)
	}
	return flag == 1, nil
}

// paxSparse applies GNU.sparse.* records to e, whose size is still that of the stream's content.
func (w *writer) paxSparse(p *paxSparse, e *entry) error {
	if e.kind != typeFile || e.sparse != nil {
		return fmt.Errorf("%w: sparse records on entry type %q", ErrFormat, e.kind)
	}
	form := "none"
	switch {
	case p.major == nil && p.minor == nil:
		form = "0.x"
	case p.major != nil && p.minor != nil:
		form = fmt.Sprintf("%d.%d", *p.major, *p.minor)
	}
	switch form {
	case "0.x", "0.0", "0.1":
		if p.size == nil || p.realSize != nil || p.blocks == nil || p.mapped && p.paired {
			return fmt.Errorf("%w: contradictory sparse records", ErrFormat)
		}
		if int64(len(p.segments)) != *p.blocks {
			return fmt.Errorf("%w: %d sparse segments, want %d", ErrFormat, len(p.segments), *p.blocks)
		}
		e.realSize, e.sparse = *p.size, append([]segment{}, p.segments...)
	case "1.0":
		if p.realSize == nil || p.size != nil || p.blocks != nil || p.mapped || p.paired {
			return fmt.Errorf("%w: contradictory sparse records", ErrFormat)
		}
		e.realSize = *p.realSize
		if err := w.sparseMap(e); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%w: sparse format %s", ErrFormat, form)
	}
	if len(e.sparse) > maxSegments {
		return fmt.Errorf("%w: more than %d sparse segments", ErrLimit, maxSegments)
	}
	return checkSegments(e.sparse, e.realSize, e.size)
}

// sparseMap reads the map of form 1.0, which stands before the content and is part of the entry's size: the number
// of segments, then offset and length of each, a decimal number a line, filled up to a whole block.
func (w *writer) sparseMap(e *entry) error {
	numbers, want := []int64{}, int64(1)
	var line []byte
	for int64(len(numbers)) < want {
		if e.size < blockSize {
			return fmt.Errorf("%w: sparse map does not fit its entry", ErrFormat)
		}
		block, err := w.in.peek(blockSize)
		if err != nil {
			return inEntry(err, e.size)
		}
		for _, c := range block {
			if c != '\n' {
				if line = append(line, c); len(line) > 19 {
					return fmt.Errorf("%w: sparse map number %s", ErrFormat, quote(string(line)))
				}
				continue
			}
			n, err := parseNatural(line)
			if err != nil {
				return err
			}
			if line = line[:0]; len(numbers) == 0 {
				if n > maxSegments {
					return fmt.Errorf("%w: %d sparse segments, at most %d", ErrLimit, n, maxSegments)
				}
				want = 1 + 2*n
			}
			if numbers = append(numbers, n); int64(len(numbers)) == want {
				break // the rest of the block is filler
			}
		}
		w.in.consume(blockSize)
		e.size -= blockSize
	}
	e.sparse = make([]segment, 0, len(numbers)/2)
	for i := 1; i < len(numbers); i += 2 {
		e.sparse = append(e.sparse, segment{numbers[i], numbers[i+1]})
	}
	return nil
}
