// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ErrMismatch is what every *Mismatch wraps.
var ErrMismatch = errors.New("verity: block does not match its hash")

// Mismatch is the block that does not match: the first of the highest level that
// has one, below which nothing is proved.
type Mismatch struct {
	Level int    // -1 is the data, 0 the digests of the data, and so on
	Block uint64 // within the level
}

func (m *Mismatch) Error() string {
	if m.Level < 0 {
		return fmt.Sprintf("%v: data block %d", ErrMismatch, m.Block)
	}
	return fmt.Sprintf("%v: block %d of tree level %d", ErrMismatch, m.Block, m.Level)
}

// Unwrap returns ErrMismatch.
func (m *Mismatch) Unwrap() error { return ErrMismatch }

// Check reads all of a tree and its data and returns nil when every block matches
// up to the pinned root, a *Mismatch when one does not. It is a diagnostic: what is
// read later may be something else.
func Check(ctx context.Context, data, hash io.ReaderAt, pin Pin) error {
	if err := pin.Validate(); err != nil {
		return err
	}
	l := newLayout(pin.Params)
	if len(l.levels) == 0 {
		return checkRoot(l, data, 0, pin.DataBlockSize, -1, pin.RootHash)
	}
	top := len(l.levels) - 1
	if err := checkRoot(l, hash, l.levels[top].offset, pin.HashBlockSize, top, pin.RootHash); err != nil {
		return err
	}
	for i := top; i >= 0; i-- {
		c := levelCheck{levelBuild: levelBuild{
			layout: l, level: l.levels[i], below: data, blockSize: pin.DataBlockSize, blocks: pin.DataBlocks,
		}, digests: hash, first: new(firstBad)}
		if i > 0 {
			c.below, c.blockSize, c.blocks, c.belowOffset = hash, pin.HashBlockSize, l.levels[i-1].blocks, l.levels[i-1].offset
		}
		if err := parallel(ctx, l.levels[i].blocks, c.worker); err != nil {
			return fmt.Errorf("checking level %d of a verity tree: %w", i, err)
		}
		if block, bad := c.first.get(); bad {
			return &Mismatch{Level: i - 1, Block: block}
		}
	}
	return nil
}

func checkRoot(l layout, r io.ReaderAt, offset uint64, size, level int, root []byte) error {
	block := make([]byte, size)
	if err := readFull(r, block, offset); err != nil {
		return fmt.Errorf("reading the top of a verity tree: %w", err)
	}
	if subtle.ConstantTimeCompare(l.hasher().sum(nil, block), root) != 1 {
		return &Mismatch{Level: level}
	}
	return nil
}

// levelCheck compares the blocks below a level with the digests in it.
type levelCheck struct {
	levelBuild
	digests io.ReaderAt
	first   *firstBad
}

func (c levelCheck) worker() func(number uint64) error {
	h := c.hasher().knowingZeros(c.blockSize)
	in := make([]byte, c.perBlock*uint64(c.blockSize))
	block, sums := make([]byte, c.HashBlockSize), make([]byte, c.HashBlockSize)
	return func(number uint64) error {
		if err := readFull(c.digests, block, c.level.offset+number*uint64(c.HashBlockSize)); err != nil {
			return err
		}
		from := number * c.perBlock
		n := min(c.perBlock, c.blocks-from)
		if err := readFull(c.below, in[:n*uint64(c.blockSize)], c.belowOffset+from*uint64(c.blockSize)); err != nil {
			return err
		}
		h.sums(sums, c.slot, in[:n*uint64(c.blockSize)], c.blockSize)
		for i := range int(n) {
			at := i * c.slot
			if subtle.ConstantTimeCompare(sums[at:at+c.digestSize], block[at:at+c.digestSize]) != 1 {
				c.first.add(from + uint64(i))
				break
			}
		}
		return nil
	}
}

// firstBad is the lowest number added to it.
type firstBad struct {
	mu     sync.Mutex // guards both
	number uint64
	bad    bool
}

func (f *firstBad) add(n uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.bad || n < f.number {
		f.number, f.bad = n, true
	}
}

func (f *firstBad) get() (uint64, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.number, f.bad
}
