// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
)

// ErrDisk is what a Sealed's errors wrap where its files do not give back what was written.
var ErrDisk = errors.New("verity: the disk does not hold what was written to it")

const (
	// cachedGroups is how many groups are kept in memory: 512 KiB with sealedParams.
	cachedGroups = 8
	// maxSealed caps the data of a Sealed: 64 GiB.
	maxSealed = 64 << 30
)

// Sealed is a file that is bound while it is written: its tree is made of what goes through memory, not of what the
// disk below says later. Data and tree may lie on a disk that somebody else changes at will: what is read again on the
// way is checked, and what is mapped by the pin afterwards is what was written or an error.
//
// Writes and reads may come in any order; what was never written is zero. Memory is 32 bytes for each 64 KiB of data,
// and 512 KiB. Methods are not for use at the same time.
type Sealed struct {
	params     Params
	layout     layout // of the largest tree: for sizes
	hash       hasher
	data       io.ReaderAt
	dataOut    io.WriterAt
	tree       io.WriterAt
	groupBytes int64
	size       int64    // highest byte written or size set
	sums       []digest // of each group's hash block; zero for a group that nothing was written to
	cache      []*group // most recent last
	block      []byte   // for one hash block at a time
}

// digest is that of the one algorithm here.
type digest [sha256.Size]byte

// group is the data below one hash block of the lowest level.
type group struct {
	number int64
	bytes  []byte
	dirty  bool
}

// SealedFile is where the data of a Sealed goes.
type SealedFile interface {
	io.ReaderAt
	io.WriterAt
}

// Seal begins a Sealed over two empty files. salt has at most MaxSalt bytes. Data blocks have 512 bytes, hash blocks 4096,
// the algorithm is sha256.
func Seal(data SealedFile, tree io.WriterAt, salt []byte) (*Sealed, error) {
	p := Params{HashType: 1, Algorithm: "sha256", Salt: salt, DataBlockSize: minBlock, HashBlockSize: maxBlock, DataBlocks: maxSealed / minBlock}
	if err := p.Validate(); err != nil {
		return nil, err
	}
	l := newLayout(p)
	return &Sealed{params: p, layout: l, hash: l.hasher(), data: data, dataOut: data, tree: tree, groupBytes: int64(l.perBlock) * int64(p.DataBlockSize), block: make([]byte, p.HashBlockSize)}, nil
}

// reserve is where the lowest level begins in the tree's file, in hash blocks: behind room for every level above it.
func (s *Sealed) reserve() uint64 { return s.layout.levels[0].offset / uint64(s.params.HashBlockSize) }

// WriteAt writes to the data.
func (s *Sealed) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > maxSealed {
		return 0, fmt.Errorf("writing a sealed file at %d: want at most %d bytes", off, int64(maxSealed))
	}
	done := 0
	for done < len(p) {
		at := off + int64(done)
		g, err := s.group(at / s.groupBytes)
		if err != nil {
			return done, err
		}
		done += copy(g.bytes[at%s.groupBytes:], p[done:])
		g.dirty = true
	}
	s.size = max(s.size, off+int64(done))
	return done, nil
}

// ReadAt reads what was written.
func (s *Sealed) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if off < 0 || at >= s.size {
			return done, io.EOF
		}
		g, err := s.group(at / s.groupBytes)
		if err != nil {
			return done, err
		}
		end := min(s.groupBytes, s.size-at+at%s.groupBytes)
		done += copy(p[done:], g.bytes[at%s.groupBytes:end])
	}
	return done, nil
}

// Truncate makes the data longer, with zeros.
func (s *Sealed) Truncate(size int64) error {
	if size < s.size || size > maxSealed {
		return fmt.Errorf("setting a sealed file to %d bytes: want %d to %d", size, s.size, int64(maxSealed))
	}
	s.size = size
	return nil
}

// group brings a group into memory.
func (s *Sealed) group(number int64) (*group, error) {
	for i, g := range s.cache {
		if g.number == number {
			s.cache = append(append(s.cache[:i], s.cache[i+1:]...), g)
			return g, nil
		}
	}
	g := &group{number: number}
	if len(s.cache) == cachedGroups {
		old := s.cache[0]
		if err := s.put(old, s.layout.perBlock); err != nil {
			return nil, err
		}
		s.cache, g.bytes = append(s.cache[:0], s.cache[1:]...), old.bytes
	} else {
		g.bytes = make([]byte, s.groupBytes)
	}
	if err := s.load(g); err != nil {
		return nil, err
	}
	s.cache = append(s.cache, g)
	return g, nil
}

// load reads a group again and checks it.
func (s *Sealed) load(g *group) error {
	if !s.written(g.number) {
		clear(g.bytes)
		return nil
	}
	if err := readFull(s.data, g.bytes, uint64(g.number*s.groupBytes)); err != nil {
		return err
	}
	if s.digest(s.leaf(g.bytes, s.layout.perBlock)) != s.sums[g.number] {
		return fmt.Errorf("%w: %d bytes at %d", ErrDisk, s.groupBytes, g.number*s.groupBytes)
	}
	return nil
}

func (s *Sealed) written(number int64) bool {
	return number < int64(len(s.sums)) && s.sums[number] != digest{}
}

func (s *Sealed) digest(block []byte) (d digest) {
	s.hash.sum(d[:0], block)
	return d
}

// leaf is the hash block of the first n data blocks of a group, until the next one is made.
func (s *Sealed) leaf(b []byte, n uint64) []byte {
	block := s.block
	clear(block)
	s.hash.sums(block, s.layout.slot, b[:n*uint64(s.params.DataBlockSize)], s.params.DataBlockSize)
	return block
}

// put writes a group and its hash block, of n data blocks, if there is anything new.
func (s *Sealed) put(g *group, n uint64) error {
	if !g.dirty {
		return nil
	}
	if _, err := s.dataOut.WriteAt(g.bytes[:n*uint64(s.params.DataBlockSize)], g.number*s.groupBytes); err != nil {
		return fmt.Errorf("writing a sealed file: %w", err)
	}
	g.dirty = false
	return s.keep(g.number, s.leaf(g.bytes, n))
}

func (s *Sealed) keep(number int64, leaf []byte) error {
	for number >= int64(len(s.sums)) {
		s.sums = append(s.sums, digest{})
	}
	s.sums[number] = s.digest(leaf)
	at := (int64(s.reserve()) + number) * int64(s.params.HashBlockSize)
	if _, err := s.tree.WriteAt(leaf, at); err != nil {
		return fmt.Errorf("writing the tree of a sealed file: %w", err)
	}
	return nil
}

// Finish writes what is left and the upper levels and returns the pin of data and tree, which are two devices. The
// size of the data must be set to a multiple of 512 bytes, and at least two of them.
func (s *Sealed) Finish(ctx context.Context) (Pin, error) {
	p := s.params
	p.DataBlocks = uint64(s.size) / uint64(p.DataBlockSize)
	if s.size%int64(p.DataBlockSize) != 0 || p.DataBlocks < 2 {
		return Pin{}, fmt.Errorf("finishing a sealed file of %d bytes: want a multiple of %d, and two at least", s.size, p.DataBlockSize)
	}
	l := newLayout(p)
	above := uint64(0)
	for _, lv := range l.levels[1:] {
		above += lv.blocks
	}
	p.HashOffset = (s.reserve() - above) * uint64(p.HashBlockSize)
	for number := range int64(l.levels[0].blocks) {
		if err := ctx.Err(); err != nil {
			return Pin{}, err
		}
		if err := s.complete(number, min(l.perBlock, p.DataBlocks-uint64(number)*l.perBlock)); err != nil {
			return Pin{}, err
		}
	}
	root, err := s.above(newLayout(p))
	return Pin{Params: p, RootHash: root}, err
}

// complete writes what is outstanding of a group of n data blocks.
func (s *Sealed) complete(number int64, n uint64) error {
	if n == s.layout.perBlock && s.written(number) {
		for _, g := range s.cache {
			if g.number == number {
				return s.put(g, n)
			}
		}
		return nil
	}
	g, err := s.group(number) // the last one, of another length, or one that nothing was written to
	if err != nil {
		return err
	}
	g.dirty = true
	return s.put(g, n)
}

// above writes the levels above the lowest, from the digests in memory, and returns the root hash.
func (s *Sealed) above(l layout) ([]byte, error) {
	sums := s.sums[:l.levels[0].blocks]
	for _, lv := range l.levels[1:] {
		var next []digest
		for number := range lv.blocks {
			block := s.block
			clear(block)
			from := number * l.perBlock
			for i, sum := range sums[from:min(from+l.perBlock, uint64(len(sums)))] {
				copy(block[i*l.slot:], sum[:])
			}
			if _, err := s.tree.WriteAt(block, int64(lv.offset+number*uint64(l.HashBlockSize))); err != nil {
				return nil, fmt.Errorf("writing the tree of a sealed file: %w", err)
			}
			next = append(next, s.digest(block))
		}
		sums = next
	}
	return sums[0][:], nil
}
