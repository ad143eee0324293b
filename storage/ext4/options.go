// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"errors"
	"fmt"
	"math"
	"time"
	"unicode"
	"unicode/utf8"
)

// The sizes that Format takes, in bytes.
const (
	MinSize = 16 << 20
	MaxSize = 16 << 40
)

const (
	minBytesPerInode = blockSize // more inodes than blocks serve nobody
	maxBytesPerInode = 64 << 20  // as mke2fs
	maxReserved      = 50        // percent, as mke2fs
	maxLabel         = 16
)

// Options says what the file system is like. No field has a default but Label, Journal and ReservedPercent, whose
// zero values mean what they say; ParseOptions gives mkfs.ext4's usual values.
type Options struct {
	UUID            [16]byte // in the order of its text; seeds all checksums and the hash of directories; not zero
	Label           string   // up to 16 bytes of printable UTF-8, or empty
	Journal         bool
	ReservedPercent int // of the blocks, for root alone: 0 to 50
	BytesPerInode   int // 4096 to 67108864: one inode for each so many bytes of the device
	InodeSize       int // 128 or 256 bytes; 128 ends in 2038 and has no nanoseconds
	RootUID         uint32
	RootGID         uint32
	RootMode        uint32    // permission bits of the root directory, up to 07777; not zero
	Now             time.Time // all times of the new file system, in whole seconds
}

// check refuses what Format cannot make.
func (o Options) check(size int64) error {
	seconds := o.Now.Unix()
	switch {
	case size < MinSize || size > MaxSize:
		return fmt.Errorf("size %d, want %d to %d bytes", size, int64(MinSize), int64(MaxSize))
	case o.UUID == [16]byte{}:
		return errors.New("UUID is missing")
	case o.ReservedPercent < 0 || o.ReservedPercent > maxReserved:
		return fmt.Errorf("%d percent reserved, want 0 to %d", o.ReservedPercent, maxReserved)
	case o.BytesPerInode < minBytesPerInode || o.BytesPerInode > maxBytesPerInode:
		return fmt.Errorf("%d bytes per inode, want %d to %d", o.BytesPerInode, minBytesPerInode, maxBytesPerInode)
	case o.InodeSize != 128 && o.InodeSize != 256:
		return fmt.Errorf("inode size %d, want 128 or 256", o.InodeSize)
	case o.RootMode == 0 || o.RootMode > 0o7777:
		return fmt.Errorf("mode %#o of the root directory, want 1 to 07777", o.RootMode)
	case seconds <= 0:
		return fmt.Errorf("time %d is missing or before 1970", seconds)
	case seconds > math.MaxInt32 && o.InodeSize == 128, seconds > 1<<34-1:
		return fmt.Errorf("time %d is more than inodes of %d bytes can hold", seconds, o.InodeSize)
	}
	return checkLabel(o.Label)
}

func checkLabel(label string) error {
	if len(label) > maxLabel || !utf8.ValidString(label) {
		return fmt.Errorf("label %q, want at most %d bytes of UTF-8", label, maxLabel)
	}
	for _, r := range label {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("label %q has the unprintable character %U", label, r)
		}
	}
	return nil
}
