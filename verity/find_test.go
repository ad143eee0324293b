// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"testing"
)

// TestFindByContent: the tree's device and the data's are told by their first blocks,
// for trees of one, two and three levels.
func TestFindByContent(t *testing.T) {
	for _, blocks := range []uint64{2, 200, 20_000} {
		p := Params{HashType: 1, Algorithm: "sha256", Salt: []byte("salt"), DataBlockSize: 512, HashBlockSize: 4096, DataBlocks: blocks, HashOffset: 8192}
		data := bytes.Repeat([]byte("0123456789abcdef"), int(blocks)*512/16)
		size, err := p.TreeSize()
		if err != nil {
			t.Fatal(err)
		}
		tree := make(memory, p.HashOffset+size)
		root, err := Build(t.Context(), bytes.NewReader(data), tree, p)
		if err != nil {
			t.Fatal(err)
		}
		pin := Pin{Params: p, RootHash: root}
		if err := CheckFirst(bytes.NewReader(data), bytes.NewReader(tree), pin); err != nil {
			t.Errorf("%d blocks: %v", blocks, err)
		}
		changed := bytes.Clone(data)
		changed[511] ^= 1
		var m *Mismatch
		if err := CheckFirst(bytes.NewReader(changed), bytes.NewReader(tree), pin); !errors.As(err, &m) || m.Level != -1 || m.Block != 0 {
			t.Errorf("%d blocks, changed data: got %v", blocks, err)
		}
		if err := CheckFirst(bytes.NewReader(data[:100]), bytes.NewReader(tree), pin); err == nil || errors.Is(err, ErrMismatch) {
			t.Errorf("%d blocks, short data: got %v", blocks, err)
		}
		// A changed block of each level, top to bottom, and what lies before the tree.
		for i, lv := range newLayout(p).levels {
			flipped := bytes.Clone([]byte(tree))
			flipped[lv.offset+4095] ^= 1
			if err := CheckFirst(bytes.NewReader(data), bytes.NewReader(flipped), pin); !errors.As(err, &m) || m.Level != i {
				t.Errorf("%d blocks, changed level %d: got %v", blocks, i, err)
			}
		}
		if err := CheckTop(bytes.NewReader(tree[:8192]), pin); err == nil {
			t.Errorf("%d blocks: no tree, and accepted", blocks)
		}
	}
	one := Pin{Params: Params{HashType: 1, Algorithm: "sha256", DataBlockSize: 512, HashBlockSize: 512, DataBlocks: 1}, RootHash: make([]byte, 32)}
	if err := CheckTop(bytes.NewReader(nil), one); err == nil {
		t.Error("a tree of no block was found")
	}
	if err := CheckTop(bytes.NewReader(nil), Pin{}); err == nil {
		t.Error("an empty pin was taken")
	}
}
