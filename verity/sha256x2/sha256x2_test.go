// SPDX-License-Identifier: Apache-2.0

package sha256x2

import (
	"bytes"
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

func want(prefix, block, suffix []byte) []byte {
	sum := sha256.Sum256(bytes.Join([][]byte{prefix, block, suffix}, nil))
	return sum[:]
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)}).Read(b)
	return b
}

// Each length of prefix, block and suffix that pads, splits or fills a chunk in another way.
func TestPair(t *testing.T) {
	lengths := []int{0, 1, 31, 32, 55, 56, 63, 64, 65, 119, 120, 127, 128, 256}
	var x, y [Size]byte
	for _, p := range lengths {
		for _, s := range lengths {
			prefix, suffix := noise(p), noise(s)
			h := New(prefix, suffix)
			for _, n := range append(lengths, 512, 4096) {
				a, b := noise(n), noise(n + 1)[1:]
				h.Pair(x[:], y[:], a, b)
				if !bytes.Equal(x[:], want(prefix, a, suffix)) || !bytes.Equal(y[:], want(prefix, b, suffix)) {
					t.Fatalf("prefix %d, block %d, suffix %d: got %x and %x", p, n, s, x, y)
				}
			}
		}
	}
}

// A digest is the same wherever a block lies in memory, and nothing beside it is read or written.
func TestUnaligned(t *testing.T) {
	h := New(noise(32), nil)
	memory, out := noise(3*4096+32), make([]byte, 4*Size)
	for shift := range 17 {
		clear(out)
		a, b := memory[shift:][:4096], memory[4096+2*shift:][:4096]
		h.Pair(out[Size:], out[2*Size:], a, b)
		if !bytes.Equal(out[Size:2*Size], want(h.prefix, a, nil)) || !bytes.Equal(out[2*Size:3*Size], want(h.prefix, b, nil)) {
			t.Errorf("shifted by %d: wrong digests", shift)
		}
		if !bytes.Equal(out[:Size], make([]byte, Size)) || !bytes.Equal(out[3*Size:], make([]byte, Size)) {
			t.Errorf("shifted by %d: wrote beside the digests", shift)
		}
	}
}

func TestPairOfDifferentLengths(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("two lengths were digested as one")
		}
	}()
	New(nil, nil).Pair(make([]byte, Size), make([]byte, Size), make([]byte, 64), make([]byte, 63))
}

func TestPairAllocatesNothing(t *testing.T) {
	h := New(noise(32), nil)
	out, a, b := make([]byte, 2*Size), noise(4096), noise(4096)
	if n := testing.AllocsPerRun(10, func() { h.Pair(out, out[Size:], a, b) }); accelerated && n != 0 {
		t.Errorf("%v allocations for a pair", n)
	}
}

func FuzzPair(f *testing.F) {
	f.Add([]byte("salt"), []byte("block"), []byte{}, byte(3))
	f.Add(noise(65), noise(200), noise(60), byte(0))
	f.Fuzz(func(t *testing.T, prefix, block, suffix []byte, flip byte) {
		other := bytes.Clone(block)
		if len(other) > 0 {
			other[int(flip)%len(other)] ^= 1
		}
		var x, y [Size]byte
		New(prefix, suffix).Pair(x[:], y[:], block, other)
		if !bytes.Equal(x[:], want(prefix, block, suffix)) || !bytes.Equal(y[:], want(prefix, other, suffix)) {
			t.Errorf("got %x and %x", x, y)
		}
	})
}

func BenchmarkPair(b *testing.B) {
	h := New(noise(32), nil)
	out, x, y := make([]byte, 2*Size), noise(4096), noise(4096)
	b.SetBytes(8192)
	for b.Loop() {
		h.Pair(out, out[Size:], x, y)
	}
}

func BenchmarkStandardLibrary(b *testing.B) {
	d, salt, x := sha256.New(), noise(32), noise(4096)
	out := make([]byte, 0, Size)
	b.SetBytes(4096)
	for b.Loop() {
		d.Reset()
		d.Write(salt)
		d.Write(x)
		d.Sum(out)
	}
}
