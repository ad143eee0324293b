// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
)

// CheckTop returns nil when hash holds the block that the pinned root hash is the
// digest of, where a tree of this pin has it, and a *Mismatch when another block lies
// there. It tells the tree's device among others by nothing that the host can write.
func CheckTop(hash io.ReaderAt, pin Pin) error {
	if err := pin.Validate(); err != nil {
		return err
	}
	l := newLayout(pin.Params)
	if len(l.levels) == 0 {
		return errors.New("a verity pin of one block has no tree")
	}
	top := len(l.levels) - 1
	return checkRoot(l, hash, l.levels[top].offset, pin.HashBlockSize, top, pin.RootHash)
}

// CheckFirst returns nil when block 0 of data matches up to the pinned root, and a
// *Mismatch when it or a block on the way does not. As [Check] it is a diagnostic: it
// tells which device to map, and the kernel then checks what is read.
func CheckFirst(data, hash io.ReaderAt, pin Pin) error {
	if err := CheckTop(hash, pin); err != nil {
		return err
	}
	l := newLayout(pin.Params)
	h := l.hasher()
	digests := make([]byte, pin.HashBlockSize)
	for i := len(l.levels) - 1; i >= 0; i-- {
		if err := readFull(hash, digests, l.levels[i].offset); err != nil {
			return fmt.Errorf("reading level %d of a verity tree: %w", i, err)
		}
		below, size, offset := data, pin.DataBlockSize, uint64(0)
		if i > 0 {
			below, size, offset = hash, pin.HashBlockSize, l.levels[i-1].offset
		}
		block := make([]byte, size)
		if err := readFull(below, block, offset); err != nil {
			return fmt.Errorf("reading below level %d of a verity tree: %w", i, err)
		}
		if subtle.ConstantTimeCompare(h.sum(nil, block), digests[:l.digestSize]) != 1 {
			return &Mismatch{Level: i - 1}
		}
	}
	return nil
}
