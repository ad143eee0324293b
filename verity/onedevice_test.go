// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// oneDevice has data, a superblock and the tree behind each other.
func oneDevice(t *testing.T, blocks uint64) (memory, Pin) {
	t.Helper()
	p := Params{HashType: 1, Algorithm: "sha256", Salt: []byte("salt"), DataBlockSize: 512, HashBlockSize: 4096, DataBlocks: blocks}
	start := (blocks*512 + 4095) / 4096 * 4096
	p.HashOffset = start + TreeOffset(p.HashBlockSize)
	size, err := p.TreeSize()
	if err != nil {
		t.Fatal(err)
	}
	m := make(memory, p.HashOffset+size)
	copy(m, noise(int(blocks)*512, 3))
	root, err := Build(t.Context(), m, m, p)
	if err != nil {
		t.Fatal(err)
	}
	superblock, err := Superblock{Params: p}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	copy(m[start:], superblock)
	return m, Pin{Params: p, RootHash: root}
}

// TestOneDevice: what is told apart by a look at the top of the tree, before anything is mapped.
func TestOneDevice(t *testing.T) {
	device, pin := oneDevice(t, 300)
	other, _ := oneDevice(t, 301)
	superblock := int(pin.HashOffset) - 4096
	change := func(at int, b byte) memory {
		m := bytes.Clone(device)
		m[at] ^= b
		return m
	}
	for name, tt := range map[string]struct {
		device memory
		want   error // nil is taken
	}{
		"the device":                   {device, nil},
		"more behind it":               {append(bytes.Clone(device), 1, 2, 3), nil},
		"another":                      {other, ErrMismatch},
		"changed top":                  {change(int(pin.HashOffset), 1), ErrMismatch},
		"a byte short":                 {device[:len(device)-1], ErrTooSmall},
		"nothing":                      {nil, ErrTooSmall},
		"superblock with more blocks":  {change(superblock+sbDataBlocks, 1), ErrSuperblock},
		"superblock with another salt": {change(superblock+sbSalt, 1), ErrSuperblock},
		"superblock of version 2":      {change(superblock+sbVersion, 3), ErrSuperblock},
		"superblock with padding":      {change(superblock+sbEnd, 1), ErrSuperblock},
		"no superblock":                {change(superblock, 1), nil}, // it has no say
	} {
		if err := CheckOneDevice(tt.device, uint64(len(tt.device)), pin); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}

// TestBehind: a pin of one device has its tree behind the data.
func TestBehind(t *testing.T) {
	_, pin := oneDevice(t, 300)
	for name, tt := range map[string]struct {
		change func(*Pin)
		want   string // "" is taken
	}{
		"as made":            {func(*Pin) {}, ""},
		"tree in the data":   {func(p *Pin) { p.HashOffset = 4096 }, "lies in its data"},
		"tree at the start":  {func(p *Pin) { p.HashOffset = 0 }, "lies in its data"},
		"one block":          {func(p *Pin) { p.DataBlocks = 1 }, "want 2 or more"},
		"half a root hash":   {func(p *Pin) { p.RootHash = p.RootHash[:16] }, "root hash of 16 bytes"},
		"unaligned":          {func(p *Pin) { p.HashOffset += 512 }, "want a multiple"},
		"blocks beyond sums": {func(p *Pin) { p.DataBlocks = 1 << 63 }, "data blocks"},
	} {
		changed := pin
		tt.change(&changed)
		if err := changed.Behind(); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}
