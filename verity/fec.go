// SPDX-License-Identifier: Apache-2.0

package verity

import "fmt"

const (
	// MinParity and MaxParity bound the bytes of Reed-Solomon parity in a word of 255.
	MinParity, MaxParity = 2, 24
	wordSize             = 255
)

// FEC says what the parity that veritysetup writes covers, and where it lies (cryptsetup, lib/verity/verity_fec.c;
// kernel device-mapper/verity.rst). It is no part of a pin: the kernel takes a repaired block only if it matches its
// hash, so that wrong parity repairs nothing and harms nothing.
type FEC struct {
	Roots  int    // bytes of parity in a word of 255
	Offset uint64 // of the parity on its device, in bytes
	Blocks uint64 // covered: the data, the tree, and what follows the tree up to the end
}

// FEC computes what parity covers. end is where that ends on the hash device, in bytes: the device's size, or offset
// where the parity lies on the same device. A last part that is no whole block is not covered.
func (p Params) FEC(roots int, offset, end uint64) (FEC, error) {
	if err := p.Validate(); err != nil {
		return FEC{}, err
	}
	size := uint64(p.DataBlockSize)
	switch tree := newLayout(p).end; {
	case p.DataBlockSize != p.HashBlockSize:
		return FEC{}, fmt.Errorf("verity parity: want equal block sizes, not %d and %d", p.DataBlockSize, p.HashBlockSize)
	case roots < MinParity || roots > MaxParity:
		return FEC{}, fmt.Errorf("verity parity of %d bytes in %d: want %d to %d", roots, wordSize, MinParity, MaxParity)
	case offset%size != 0 || offset > maxBlocks*minBlock:
		return FEC{}, fmt.Errorf("verity parity at %d: want a multiple of the block size %d", offset, size)
	case end < tree || end > maxBlocks*minBlock:
		return FEC{}, fmt.Errorf("verity parity: what it covers ends at %d, want at least the tree's end %d", end, tree)
	}
	return FEC{Roots: roots, Offset: offset, Blocks: p.DataBlocks + (end-p.HashOffset)/size}, nil
}

// Size is the number of bytes that the parity takes, for blocks of the given size.
func (f FEC) Size(blockSize int) uint64 {
	covered := uint64(wordSize - f.Roots)
	return (f.Blocks + covered - 1) / covered * uint64(f.Roots) * uint64(blockSize)
}
