// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

// memory is a device.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(m)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}

func noise(n int, seed uint64) memory {
	m := make(memory, n)
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range m {
		m[i] = byte(rng.Uint32())
	}
	return m
}

func params(blocks uint64) Params {
	return Params{HashType: 1, Algorithm: "sha256", Salt: []byte("salt"), DataBlockSize: 4096, HashBlockSize: 4096, DataBlocks: blocks}
}

func build(t testing.TB, data memory, p Params) (memory, Pin) {
	t.Helper()
	size, err := p.TreeSize()
	if err != nil {
		t.Fatal(err)
	}
	tree := make(memory, p.HashOffset+size)
	root, err := Build(t.Context(), data, tree, p)
	if err != nil {
		t.Fatal(err)
	}
	return tree, Pin{Params: p, RootHash: root}
}

// TestCheckFindsEveryFlip: a flipped bit anywhere, in data or tree, is found and
// named; the highest level's comes first.
func TestCheckFindsEveryFlip(t *testing.T) {
	p := params(300) // two levels: 3 blocks and 1
	data := noise(300*4096, 1)
	tree, pin := build(t, data, p)
	if err := Check(t.Context(), data, tree, pin); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		flip func(data, tree memory)
		want Mismatch
	}{
		{"first data byte", func(d, _ memory) { d[0] ^= 1 }, Mismatch{-1, 0}},
		{"last data byte", func(d, _ memory) { d[len(d)-1] ^= 0x80 }, Mismatch{-1, 299}},
		{"two data blocks", func(d, _ memory) { d[200*4096] ^= 1; d[130*4096] ^= 1 }, Mismatch{-1, 130}},
		{"root block", func(_, h memory) { h[0] ^= 1 }, Mismatch{1, 0}},
		{"padding of the root block", func(_, h memory) { h[4095] ^= 1 }, Mismatch{1, 0}},
		{"second block of digests", func(_, h memory) { h[2*4096+5] ^= 1 }, Mismatch{0, 1}},
		{"padding of the last block", func(_, h memory) { h[len(h)-1] ^= 1 }, Mismatch{0, 2}},
		{"data and tree", func(d, h memory) { d[0] ^= 1; h[3*4096] ^= 1 }, Mismatch{0, 2}},
		{"two blocks swapped", func(d, _ memory) {
			a := bytes.Clone(d[:4096])
			copy(d, d[4096:8192])
			copy(d[4096:], a)
		}, Mismatch{-1, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, h := bytes.Clone(data), bytes.Clone(tree)
			tt.flip(d, h)
			err := Check(t.Context(), memory(d), memory(h), pin)
			m, ok := errors.AsType[*Mismatch](err)
			if !ok || *m != tt.want || !errors.Is(err, ErrMismatch) {
				t.Errorf("got %v, want %v", err, &tt.want)
			}
		})
	}
}

// TestZeroBlocks: blocks of zeros, which are digested once, have the digest that they
// have anyway, and so have those that are nearly all zeros.
func TestZeroBlocks(t *testing.T) {
	for hashType := range 2 {
		p := params(260)
		p.HashType = hashType
		data := make(memory, 260*4096)
		data[3*4096], data[5*4096-1], data[128*4096+2000] = 1, 1, 1
		tree, pin := build(t, data, p)
		plain := newLayout(p).hasher()
		for block := range 260 {
			lv := newLayout(p).levels[0]
			at := int(lv.offset) + block/128*4096 + block%128*32
			if got, want := tree[at:at+32], plain.sum(nil, data[block*4096:][:4096]); !bytes.Equal(got, want) {
				t.Errorf("hash type %d, block %d: got %x, want %x", hashType, block, got, want)
			}
		}
		data[200*4096+4095] ^= 0x80
		m, ok := errors.AsType[*Mismatch](Check(t.Context(), data, tree, pin))
		if !ok || *m != (Mismatch{-1, 200}) {
			t.Errorf("hash type %d: got %v", hashType, m)
		}
	}
}

// TestPinIsTheWholeTuple: with any member of the pin changed the device is refused.
func TestPinIsTheWholeTuple(t *testing.T) {
	data := noise(40*4096, 2)
	tree, pin := build(t, data, params(40))
	for _, tt := range []struct {
		name   string
		change func(*Pin)
	}{
		{"root hash", func(p *Pin) { p.RootHash = bytes.Clone(p.RootHash); p.RootHash[31] ^= 1 }},
		{"salt", func(p *Pin) { p.Salt = []byte("other") }},
		{"hash type", func(p *Pin) { p.HashType = 0 }},
		{"algorithm", func(p *Pin) { p.Algorithm, p.RootHash = "sha512", make([]byte, 64) }},
		{"data block size", func(p *Pin) { p.DataBlockSize = 2048 }},
		{"hash block size", func(p *Pin) { p.HashBlockSize = 1024 }},
		{"fewer data blocks", func(p *Pin) { p.DataBlocks = 1 }},
		{"more data blocks", func(p *Pin) { p.DataBlocks = 41 }},
		{"offset", func(p *Pin) { p.HashOffset = 4096 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			other := pin
			tt.change(&other)
			if err := Check(t.Context(), data, tree, other); err == nil {
				t.Error("accepted")
			}
			if tt.name != "root hash" {
				if err := pin.Repeats(other.Params); err == nil {
					t.Error("a superblock that says otherwise repeats the pin")
				}
			}
		})
	}
	if err := pin.Repeats(pin.Params); err != nil {
		t.Error(err)
	}
}

func TestDeviceThatIsTooShort(t *testing.T) {
	data := noise(40*4096, 3)
	tree, pin := build(t, data, params(40))
	if err := Check(t.Context(), data[:len(data)-1], tree, pin); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("data: got %v", err)
	}
	if err := Check(t.Context(), data, tree[:len(tree)-1], pin); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("tree: got %v", err)
	}
	if _, err := Build(t.Context(), data[:5], make(memory, 4096), params(40)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("building: got %v", err)
	}
	if _, err := Build(t.Context(), data, make(memory, 5), params(40)); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("no room for the tree: got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Check(ended, data, tree, pin); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v", err)
	}
}

func TestParamsRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*Params)
		want   string
	}{
		{"hash type", func(p *Params) { p.HashType = 2 }, "want 0 or 1"},
		{"SHA-1", func(p *Params) { p.Algorithm = "sha1" }, "want sha256"},
		{"no algorithm", func(p *Params) { p.Algorithm = "" }, "want sha256"},
		{"long salt", func(p *Params) { p.Salt = make([]byte, 257) }, "at most 256"},
		{"block size 0", func(p *Params) { p.DataBlockSize = 0 }, "power of two"},
		{"block size 3000", func(p *Params) { p.HashBlockSize = 3000 }, "power of two"},
		{"block size 8192", func(p *Params) { p.HashBlockSize = 8192 }, "power of two"},
		{"no data", func(p *Params) { p.DataBlocks = 0 }, "data blocks 0"},
		{"too many blocks", func(p *Params) { p.DataBlocks = 1 << 60 }, "data blocks"},
		{"crooked offset", func(p *Params) { p.HashOffset = 512 }, "multiple"},
		{"offset beyond every device", func(p *Params) { p.HashOffset = 1 << 63 }, "hash offset"},
	} {
		p := params(4)
		tt.change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
		if _, err := Build(t.Context(), noise(4*4096, 4), make(memory, 4096), p); err == nil {
			t.Errorf("%s: built", tt.name)
		}
	}
}

func superblock(t testing.TB) []byte {
	t.Helper()
	p := params(7)
	p.HashOffset = TreeOffset(p.HashBlockSize)
	b, err := Superblock{UUID: [16]byte{1, 2, 3}, Params: p}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseSuperblockRefuses(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func([]byte) []byte
		want  string
	}{
		{"short", func(b []byte) []byte { return b[:511] }, "want 512"},
		{"empty device", func(b []byte) []byte { return make([]byte, 512) }, "no signature"},
		{"another version", func(b []byte) []byte { b[sbVersion] = 2; return b }, "version 2"},
		{"name without end", func(b []byte) []byte {
			copy(b[sbAlgorithm:], strings.Repeat("a", 32))
			return b
		}, "no end"},
		{"bytes behind the name", func(b []byte) []byte { b[sbDataBlockSize-1] = 'x'; return b }, "padding"},
		{"salt over its field", func(b []byte) []byte { binary.LittleEndian.PutUint16(b[sbSaltSize:], 257); return b }, "257 bytes"},
		{"bytes behind the salt", func(b []byte) []byte { b[sbEnd-1] = 1; return b }, "padding"},
		{"bytes at the end", func(b []byte) []byte { b[511] = 1; return b }, "padding"},
		{"hash type 9", func(b []byte) []byte { b[sbHashType] = 9; return b }, "hash type"},
		{"negative hash type", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[sbHashType:], 1<<32-1); return b }, "hash type"},
		{"block size 1", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[sbDataBlockSize:], 1); return b }, "power of two"},
		{"huge block", func(b []byte) []byte { binary.LittleEndian.PutUint32(b[sbHashBlockSize:], 1<<31); return b }, "power of two"},
		{"no blocks", func(b []byte) []byte { binary.LittleEndian.PutUint64(b[sbDataBlocks:], 0); return b }, "data blocks"},
		{"more blocks than bytes exist", func(b []byte) []byte { binary.LittleEndian.PutUint64(b[sbDataBlocks:], 1<<63); return b }, "data blocks"},
	} {
		if _, err := ParseSuperblock(tt.spoil(superblock(t))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func FuzzParseSuperblock(f *testing.F) {
	f.Add(superblock(f))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := ParseSuperblock(raw)
		if err != nil {
			return
		}
		b, err := s.Encode()
		if err != nil || !bytes.Equal(b, raw[:SuperblockSize]) {
			t.Errorf("a superblock that was taken encodes to other bytes: %v", err)
		}
	})
}

func TestPinText(t *testing.T) {
	_, pin := build(t, noise(9*4096, 5), params(9))
	text, err := pin.KernelParams()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParsePin(text + "\n")
	if err != nil || !bytes.Equal(back.RootHash, pin.RootHash) || pin.Repeats(back.Params) != nil {
		t.Errorf("got %+v, %v", back, err)
	}
	for name, bad := range map[string]string{
		"empty":          "",
		"twice":          text + ",salt=00",
		"unknown":        text + ",opt=ignore_corruption",
		"no root":        strings.Replace(text, "root_hash", "roothash", 1),
		"short root":     strings.Replace(text, "root_hash=", "root_hash=00,x=", 1),
		"no digits":      strings.Replace(text, "data_blocks=9", "data_blocks=nine", 1),
		"negative":       strings.Replace(text, "data_blocks=9", "data_blocks=-9", 1),
		"option smuggle": strings.Replace(text, "data_blocks=9", "data_blocks=9 1 restart_on_corruption", 1),
		"too long":       text + strings.Repeat(" ", maxPinText),
	} {
		if _, err := ParsePin(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_, other := build(t, noise(9*512, 6), Params{HashType: 0, Algorithm: "sha512", DataBlockSize: 512, HashBlockSize: 1024, DataBlocks: 9, HashOffset: 1024})
	back, err = ParsePin(other.Text())
	if err != nil || !bytes.Equal(back.RootHash, other.RootHash) || other.Repeats(back.Params) != nil {
		t.Errorf("got %+v, %v from %s", back, err, other.Text())
	}
	if _, err := other.KernelParams(); err == nil {
		t.Error("a pin that kata's form cannot say is written in it")
	}
}
