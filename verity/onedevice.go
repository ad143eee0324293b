// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// What errors of CheckOneDevice wrap, besides ErrMismatch.
var (
	ErrTooSmall   = errors.New("verity device is too small")
	ErrSuperblock = errors.New("verity superblock disagrees with the pin")
)

// Behind returns an error unless the pinned tree lies behind its data, as it must where one device has both.
func (p Pin) Behind() error {
	if err := p.Validate(); err != nil {
		return err
	}
	if p.DataBlocks < 2 {
		return fmt.Errorf("verity data blocks %d: want 2 or more, which have a tree", p.DataBlocks)
	}
	if end := p.dataBytes(); p.HashOffset < end {
		return fmt.Errorf("verity hash offset %d: the tree lies in its data, which ends at %d", p.HashOffset, end)
	}
	return nil
}

func (p Params) dataBytes() uint64 { return p.DataBlocks * uint64(p.DataBlockSize) }

// CheckOneDevice looks whether a device of size bytes can be the one that a pin of a device with data and tree means:
// it is large enough, a superblock in front of the tree repeats the pin, and the tree's topmost block is the pinned
// one; where it is another the error wraps [ErrMismatch]. No superblock is asked for: it proves nothing. As [Check]
// this is a diagnostic; the kernel checks what is read later.
func CheckOneDevice(device io.ReaderAt, size uint64, pin Pin) error {
	if err := pin.Behind(); err != nil {
		return err
	}
	if end := newLayout(pin.Params).end; size < end {
		return fmt.Errorf("%w: %d bytes, data and tree end at %d", ErrTooSmall, size, end)
	}
	if err := CheckTop(device, pin); err != nil {
		return err
	}
	head := TreeOffset(pin.HashBlockSize)
	if pin.HashOffset < pin.dataBytes()+head {
		return nil // no room for a superblock
	}
	b := make([]byte, SuperblockSize)
	if err := readFull(device, b, pin.HashOffset-head); err != nil {
		return fmt.Errorf("reading the verity superblock: %w", err)
	}
	if !bytes.HasPrefix(b, []byte(sbSignature)) {
		return nil
	}
	superblock, err := ParseSuperblock(b)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSuperblock, err)
	}
	superblock.HashOffset = pin.HashOffset // it is where the pin wants it, and has no word for that
	if err := pin.Repeats(superblock.Params); err != nil {
		return fmt.Errorf("%w: %w", ErrSuperblock, err)
	}
	return nil
}
