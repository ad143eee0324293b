// SPDX-License-Identifier: Apache-2.0

package sha256x2

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

const (
	// Size is the length of a digest in bytes.
	Size = sha256.Size
	// lengthSize is what the padding ends with: the message's length in bits, big-endian.
	lengthSize = 8
)

// Hasher makes digests of prefix, block and suffix. It is for one goroutine at a time.
type Hasher struct {
	prefix, suffix []byte
	// middle is the state after the whole chunks of the prefix, and left what follows them: less than a chunk.
	middle state
	left   []byte
	// ends are the last chunks of both messages: what is left of the block, the suffix and the padding.
	ends [2][]byte
}

// state is that of SHA-256 between two chunks.
type state [8]uint32

// initial is the state before the first chunk (FIPS 180-4, 5.3.3).
func initial() state {
	return state{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}
}

// New returns a hasher that keeps prefix and suffix, which must not change. Either may be empty.
func New(prefix, suffix []byte) *Hasher {
	h := &Hasher{prefix: prefix, suffix: suffix}
	if !accelerated {
		return h
	}
	whole := len(prefix) &^ (sha256.BlockSize - 1)
	both := [2]state{initial(), initial()}
	chunks(&both, prefix[:whole], prefix[:whole])
	h.middle, h.left = both[0], prefix[whole:]
	most := sha256.BlockSize - 1 + len(suffix) + 1 + lengthSize
	for i := range h.ends {
		h.ends[i] = make([]byte, 0, most+sha256.BlockSize-1)
	}
	return h
}

// Pair writes the digests of a and b, which are equally long, to the first Size bytes of toA and toB.
func (h *Hasher) Pair(toA, toB, a, b []byte) {
	if len(a) != len(b) {
		panic(fmt.Sprintf("sha256x2: messages of %d and %d bytes", len(a), len(b)))
	}
	if !accelerated {
		h.single(toA, a)
		h.single(toB, b)
		return
	}
	length := len(h.prefix) + len(a) + len(h.suffix)
	s, left := [2]state{h.middle, h.middle}, h.left
	if fill := sha256.BlockSize - len(left); len(left) > 0 && len(a) >= fill {
		var first [2][sha256.BlockSize]byte
		copy(first[0][copy(first[0][:], left):], a)
		copy(first[1][copy(first[1][:], left):], b)
		chunks(&s, first[0][:], first[1][:])
		left, a, b = nil, a[fill:], b[fill:]
	}
	if len(left) == 0 {
		whole := len(a) &^ (sha256.BlockSize - 1)
		chunks(&s, a[:whole], b[:whole])
		a, b = a[whole:], b[whole:]
	}
	h.finish(&s, length, left, a, b)
	s[0].put(toA)
	s[1].put(toB)
}

// finish takes what is left of both messages, less than a chunk together with left, and pads it.
func (h *Hasher) finish(s *[2]state, length int, left, a, b []byte) {
	for i, rest := range [2][]byte{a, b} {
		end := append(append(append(h.ends[i][:0], left...), rest...), h.suffix...)
		end = append(end, 0x80)
		for len(end)%sha256.BlockSize != sha256.BlockSize-lengthSize {
			end = append(end, 0)
		}
		h.ends[i] = binary.BigEndian.AppendUint64(end, uint64(length)*8)
	}
	chunks(s, h.ends[0], h.ends[1])
}

func (h *Hasher) single(to, block []byte) {
	d := sha256.New()
	d.Write(h.prefix)
	d.Write(block)
	d.Write(h.suffix)
	d.Sum(to[:0])
}

func (s *state) put(to []byte) {
	_ = to[Size-1]
	for i, word := range s {
		binary.BigEndian.PutUint32(to[4*i:], word)
	}
}
