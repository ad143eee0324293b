// SPDX-License-Identifier: Apache-2.0

package verity

import "testing"

func TestFEC(t *testing.T) {
	p := params(1000) // a tree of 8 blocks and one above
	p.HashOffset = 4096
	f, err := p.FEC(2, 0, 11*4096+100)
	if err != nil || f != (FEC{Roots: 2, Blocks: 1010}) || f.Size(4096) != 4*2*4096 {
		t.Errorf("parity on a device of its own: got %+v of %d bytes, %v", f, f.Size(4096), err)
	}
	f, err = p.FEC(24, 10*4096, 10*4096)
	if err != nil || f != (FEC{Roots: 24, Offset: 10 * 4096, Blocks: 1009}) || f.Size(4096) != 5*24*4096 {
		t.Errorf("parity behind the tree: got %+v of %d bytes, %v", f, f.Size(4096), err)
	}
}

func TestRefusedFEC(t *testing.T) {
	for _, tt := range []struct {
		name        string
		roots       int
		offset, end uint64
		change      func(*Params)
	}{
		{"no parity", 0, 0, 1 << 20, nil},
		{"negative", -1, 0, 1 << 20, nil},
		{"one byte", 1, 0, 1 << 20, nil},
		{"too much", 25, 0, 1 << 20, nil},
		{"off its place", 2, 512, 1 << 20, nil},
		{"far out", 2, 1 << 62, 1 << 20, nil},
		{"without the tree's last byte", 2, 0, 9*4096 - 1, nil},
		{"an end that overflows", 2, 0, 1<<64 - 1, nil},
		{"two block sizes", 2, 0, 1 << 20, func(p *Params) { p.HashBlockSize = 2048 }},
		{"no data", 2, 0, 1 << 20, func(p *Params) { p.DataBlocks = 0 }},
	} {
		p := params(1000)
		if tt.change != nil {
			tt.change(&p)
		}
		if f, err := p.FEC(tt.roots, tt.offset, tt.end); err == nil {
			t.Errorf("%s: got %+v", tt.name, f)
		}
	}
}
