// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"hash"
	"math/bits"

	"github.com/casemate/casemate/verity/sha256x2"
)

// level is one level of a tree: blocks of digests of the level below it.
type level struct {
	offset uint64 // on the hash device, in bytes
	blocks uint64
}

// layout is where the levels of a tree lie. levels[0] holds the digests of the
// data; the topmost, of one block, comes first on the device (verity.rst, "Hash
// Tree"). One data block has no level: its own digest is the root.
type layout struct {
	Params
	digestSize int
	slot       int // bytes from one digest to the next within a block
	perBlock   uint64
	levels     []level
	end        uint64 // of the tree on the hash device
}

func newLayout(p Params) layout {
	l := layout{Params: p, digestSize: newHash(p.Algorithm)().Size()}
	l.perBlock = 1 << (bits.Len(uint(p.HashBlockSize/l.digestSize)) - 1)
	l.slot = l.digestSize
	if p.HashType == 1 { // each digest is padded to a power of two
		l.slot = p.HashBlockSize / int(l.perBlock)
	}
	for n := p.DataBlocks; n > 1; {
		n = (n + l.perBlock - 1) / l.perBlock
		l.levels = append(l.levels, level{blocks: n})
	}
	at := p.HashOffset
	for i := len(l.levels) - 1; i >= 0; i-- {
		l.levels[i].offset = at
		at += l.levels[i].blocks * uint64(p.HashBlockSize)
	}
	l.end = at
	return l
}

// hasher digests blocks of one tree.
type hasher struct {
	h        hash.Hash
	pairs    *sha256x2.Hasher // two blocks at once; nil where the algorithm is another
	salt     []byte
	saltLast bool
	// A block of zeros, and its digest: images have many of them, and to see that a
	// block is not one takes its first bytes. Empty where this is not wanted.
	zeros, ofZeros []byte
}

func (l layout) hasher() hasher {
	h := hasher{h: newHash(l.Algorithm)(), salt: l.Salt, saltLast: l.HashType == 0}
	if l.Algorithm == "sha256" {
		before, behind := l.Salt, []byte(nil)
		if h.saltLast {
			before, behind = behind, before
		}
		h.pairs = sha256x2.New(before, behind)
	}
	return h
}

// knowingZeros digests blocks of zeros of the given size once for all.
func (h hasher) knowingZeros(size int) hasher {
	zeros := make([]byte, size)
	h.ofZeros = h.sum(nil, zeros)
	h.zeros = zeros
	return h
}

// sum appends the digest of one block to dst.
func (h hasher) sum(dst, block []byte) []byte {
	if h.isZeros(block) {
		return append(dst, h.ofZeros...)
	}
	h.h.Reset()
	if !h.saltLast {
		h.h.Write(h.salt)
	}
	h.h.Write(block)
	if h.saltLast {
		h.h.Write(h.salt)
	}
	return h.h.Sum(dst)
}

// sums writes the digests of the blocks of in, of size bytes each, to out, one every slot bytes.
func (h hasher) sums(out []byte, slot int, in []byte, size int) {
	waiting := -1 // a block that has no second one yet
	for i := range len(in) / size {
		block := in[i*size:][:size]
		switch {
		case h.pairs == nil || h.isZeros(block):
			h.sum(out[i*slot:i*slot], block)
		case waiting < 0:
			waiting = i
		default:
			h.pairs.Pair(out[waiting*slot:], out[i*slot:], in[waiting*size:][:size], block)
			waiting = -1
		}
	}
	if waiting >= 0 {
		h.sum(out[waiting*slot:waiting*slot], in[waiting*size:][:size])
	}
}

func (h hasher) isZeros(block []byte) bool { return len(h.zeros) > 0 && bytes.Equal(block, h.zeros) }

// TreeSize is the number of bytes that a tree takes on the hash device, without
// what lies before it.
func (p Params) TreeSize() (uint64, error) {
	if err := p.Validate(); err != nil {
		return 0, err
	}
	return newLayout(p).end - p.HashOffset, nil
}
