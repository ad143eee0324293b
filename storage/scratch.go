// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/casemate/casemate/storage/devmapper"
)

// scratchSectorSize is that of scratch, in bytes: one tag a page.
const scratchSectorSize = 4096

// ScratchConfig says where scratch is made.
type ScratchConfig struct {
	Name    string           // of the mapping in /dev/mapper; NAME_dif is used too
	Device  string           // absolute path of a block device, the whole of which is used and lost
	MinSize int64            // of the device, in bytes
	Cipher  devmapper.Cipher // one that authenticates: a constant of the image
}

// Scratch is an encrypted and authenticated device whose key is in the kernel alone. Without Format no block of it
// can be read before it has been written.
type Scratch struct {
	Path  string // /dev/mapper/NAME
	Size  int64  // bytes, a multiple of 4096
	stack stack
}

var errNoTags = errors.New("the cipher does not authenticate")

// OpenScratch maps a device under a new random key: no header, no key derivation, no journal. Nothing of an earlier
// mapping of the device can be read through the new one. A device that begins with a LUKS header is refused: that
// is somebody's volume. On error nothing stays mapped. The caller closes.
func OpenScratch(ctx context.Context, m Mapper, c ScratchConfig) (*Scratch, error) {
	disk, err := openBlockDevice(c.Device, os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("opening scratch: %w", err)
	}
	s, err := openScratch(ctx, m, c, disk)
	if err != nil {
		return nil, fmt.Errorf("opening scratch on %s: %w", c.Device, err)
	}
	return s, nil
}

// openScratch closes disk, since the kernel wants it for itself.
func openScratch(ctx context.Context, m Mapper, c ScratchConfig, disk *os.File) (*Scratch, error) {
	size, err := prepareScratch(disk, c)
	if err = errors.Join(err, disk.Close(), ctx.Err()); err != nil {
		return nil, err
	}
	var id [16]byte
	rand.Read(id[:]) // never fails
	key := make([]byte, c.Cipher.KeySize())
	defer clear(key)
	rand.Read(key)
	t := table{name: c.Name, id: hex.EncodeToString(id[:]), device: c.Device, cipher: c.Cipher, key: key, size: uint64(size), sectorSize: scratchSectorSize}
	s := &Scratch{stack: stack{mapper: m}}
	sectors, err := s.stack.formatTags(t)
	if err != nil {
		return nil, errors.Join(err, s.stack.settle())
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d, err := s.stack.open(t, sectors)
	if err != nil {
		return nil, err
	}
	s.Path, s.Size = d.Path, int64(sectors)*devmapper.SectorSize
	return s, nil
}

// prepareScratch returns the device's size after clearing the place where the kernel looks for a superblock: only
// over zeros does it make its own, and never one that the host has written.
func prepareScratch(disk *os.File, c ScratchConfig) (int64, error) {
	if c.Cipher.TagSize() == 0 {
		return 0, errNoTags
	}
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, fmt.Errorf("reading the device's size: %w", err)
	}
	if size < c.MinSize {
		return 0, fmt.Errorf("the device has %d bytes, want at least %d", size, c.MinSize)
	}
	start := make([]byte, superblockRoom)
	if n, err := disk.ReadAt(start, 0); n < len(start) {
		return 0, fmt.Errorf("reading the device's start: %d bytes of %d: %w", n, len(start), err)
	}
	if hasLUKSHeader(start) {
		return 0, errors.New("the device begins with a LUKS header: it is a volume and no scratch")
	}
	clear(start)
	if _, err := disk.WriteAt(start, 0); err != nil {
		return 0, fmt.Errorf("clearing the device's start: %w", err)
	}
	if err := disk.Sync(); err != nil {
		return 0, fmt.Errorf("clearing the device's start: %w", err)
	}
	return size, nil
}

// hasLUKSHeader knows the signature of both formats.
func hasLUKSHeader(start []byte) bool { return string(start[:6]) == "LUKS\xba\xbe" }

// Format lets f write to the device. It is called at most once, before the device is used.
func (s *Scratch) Format(ctx context.Context, f Formatter) error {
	if err := format(ctx, s.Path, s.Size, f); err != nil {
		return fmt.Errorf("formatting scratch: %w", err)
	}
	return nil
}

// Close removes the mappings and with them the only copy of the key. Unmount before: a device in use stays, with an
// error that wraps unix.EBUSY, and Close may be called again.
func (s *Scratch) Close() error {
	if err := s.stack.close(); err != nil {
		return fmt.Errorf("closing scratch: %w", err)
	}
	return nil
}
