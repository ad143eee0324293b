// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"errors"
	"fmt"
)

// Integrity keeps a tag for every block of a device (kernel device-mapper/dm-integrity.rst). With a key it computes
// and checks the tags itself; without one it only stores them for a [Crypt] mapping on top.
//
// Recalculation, bitmap mode and discards are not offered: each lets blocks without a valid tag be read as data.
//
// The first mapping over a zeroed start of the device formats it; ask for 8 sectors then, and read the usable size
// from the second number of its status.
type Integrity struct {
	LengthSectors uint64
	Device        string // absolute path
	OffsetSectors uint64 // reserved at the start of Device
	BlockSize     int    // bytes per tag: 512, 1024, 2048 or 4096
	TagSize       int    // bytes that the mapping on top stores per block; 0 with a Key
	Key           []byte // 32 bytes for HMAC-SHA-256, or nil; the caller clears it
	Journal       bool   // survive power loss at the price of writing twice
}

const hmacKeySize = 32

func (t Integrity) kind() string    { return "integrity" }
func (t Integrity) sectors() uint64 { return t.LengthSectors }

func (t Integrity) params(l *line) {
	switch {
	case t.BlockSize != 512 && t.BlockSize != 1024 && t.BlockSize != 2048 && t.BlockSize != 4096:
		l.fail(fmt.Errorf("block size %d, want 512 to 4096", t.BlockSize))
	case t.Key != nil && len(t.Key) != hmacKeySize:
		l.fail(fmt.Errorf("key has %d bytes, want %d", len(t.Key), hmacKeySize))
	case (t.Key != nil) == (t.TagSize != 0):
		l.fail(errors.New("want either a key or a tag size"))
	case t.TagSize < 0 || t.TagSize > 255:
		l.fail(fmt.Errorf("tag size %d", t.TagSize))
	}
	if l.err != nil {
		return
	}
	l.device(t.Device)
	l.number(t.OffsetSectors)
	if t.TagSize > 0 {
		l.number(uint64(t.TagSize))
	} else {
		l.word("-") // as long as the hash
	}
	if t.Journal {
		l.word("J")
	} else {
		l.word("D")
	}
	// fix_padding and fix_hmac are the corrected on-disk forms, which only old kernels lack.
	opts := []string{fmt.Sprintf("block_size:%d", t.BlockSize), "fix_padding"}
	if !t.Journal {
		// Formatting lays a journal out and initialises it even where none is used: the least one, then. A device
		// that is already formatted keeps its own.
		opts = append(opts, "journal_sectors:1")
	}
	if t.Key == nil {
		l.options(opts)
		return
	}
	// The hash comes last, since the key is written straight into the line.
	l.options(append(opts, "fix_hmac", "internal_hash:hmac(sha256):"))
	l.rawHex(t.Key)
}
