// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
)

// HashDevice is where a tree is written; the levels above the first are made from
// what was written below them.
type HashDevice interface {
	io.ReaderAt
	io.WriterAt
}

const (
	// spanBlocks is how many hash blocks of a level a worker makes at a time. Its buffers are those and readSize.
	spanBlocks = 8
	// readSize is what is read at a time, in bytes: what is hashed next should still be in the processor's cache.
	readSize = 128 << 10
)

// Build writes the tree over p.DataBlocks blocks of data to hash from p.HashOffset
// on and returns the root hash. All cores work, in memory that does not grow with
// the device. Nothing is written outside the tree: a superblock is the caller's.
func Build(ctx context.Context, data io.ReaderAt, hash HashDevice, p Params) ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	l := newLayout(p)
	below, size, blocks := io.ReaderAt(data), p.DataBlockSize, p.DataBlocks
	offset := uint64(0)
	for i, lv := range l.levels {
		b := levelBuild{layout: l, level: lv, below: below, blockSize: size, blocks: blocks, belowOffset: offset, hash: hash}
		if err := parallel(ctx, (lv.blocks+spanBlocks-1)/spanBlocks, b.worker); err != nil {
			return nil, fmt.Errorf("building level %d of a verity tree: %w", i, err)
		}
		below, size, blocks, offset = hash, p.HashBlockSize, lv.blocks, lv.offset
	}
	top := make([]byte, size)
	if err := readFull(below, top, offset); err != nil {
		return nil, fmt.Errorf("reading the top of a verity tree: %w", err)
	}
	return l.hasher().sum(nil, top), nil
}

// levelBuild makes one level from the one below it, or from the data.
type levelBuild struct {
	layout
	level
	below       io.ReaderAt
	belowOffset uint64
	blockSize   int
	blocks      uint64 // below
	hash        io.WriterAt
}

// worker returns what makes span after span, with buffers of its own.
func (b levelBuild) worker() func(span uint64) error {
	h := b.hasher().knowingZeros(b.blockSize)
	in := make([]byte, readSize)
	out := make([]byte, spanBlocks*b.HashBlockSize)
	return func(span uint64) error {
		first := span * spanBlocks
		n := min(spanBlocks, b.level.blocks-first)
		made := out[:n*uint64(b.HashBlockSize)]
		clear(made)
		for i := range n {
			if err := b.fill(h, made[i*uint64(b.HashBlockSize):][:b.HashBlockSize], in, first+i); err != nil {
				return err
			}
		}
		_, err := b.hash.WriteAt(made, int64(b.level.offset+first*uint64(b.HashBlockSize)))
		return err
	}
}

// fill makes the hash block of the given number in block, which is zero.
func (b levelBuild) fill(h hasher, block, in []byte, number uint64) error {
	from := number * b.perBlock
	end := min(from+b.perBlock, b.blocks)
	for at := from; at < end; {
		part := in[:min(uint64(len(in)), (end-at)*uint64(b.blockSize))]
		if err := readFull(b.below, part, b.belowOffset+at*uint64(b.blockSize)); err != nil {
			return err
		}
		h.sums(block[(at-from)*uint64(b.slot):], b.slot, part, b.blockSize)
		at += uint64(len(part) / b.blockSize)
	}
	return nil
}

// readFull fills b from offset. A device that ends before is an error.
func readFull(r io.ReaderAt, b []byte, offset uint64) error {
	n, err := r.ReadAt(b, int64(offset))
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(b), offset, err)
}

// parallel runs spans 0 to n-1 on all cores; newWorker is called once for each. The
// first error ends it, and so does ctx.
func parallel(ctx context.Context, n uint64, newWorker func() func(span uint64) error) error {
	var next atomic.Uint64
	var wg sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed error
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for range min(uint64(runtime.GOMAXPROCS(0)), n) {
		wg.Go(func() {
			work := newWorker()
			for span := next.Add(1) - 1; span < n && ctx.Err() == nil; span = next.Add(1) - 1 {
				if err := work(span); err != nil {
					mu.Lock()
					if failed == nil {
						failed = err
					}
					mu.Unlock()
					cancel()
				}
			}
		})
	}
	wg.Wait()
	if failed != nil {
		return failed
	}
	return ctx.Err()
}
