// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// newKeyCost is the least: the key has the entropy of a key (minNewKey).
var newKeyCost = luks.Cost{KDF: luks.KDFPBKDF2, Iterations: 1000}

// blankRoom is how much of a device's start must read as zeros for a new volume, in bytes: all places where file
// systems and other volumes leave their signatures.
const blankRoom = 1 << 20

// Create makes a volume on a blank device and lets f write its content; it stays closed. The header is laid down
// with a new random volume key, which key opens. What is not blank gives luks.ErrNotBlank with nothing written.
//
// A call that fails later, or is cut off, leaves a target that is not blank: it neither becomes a volume by itself nor
// is taken for a blank one. Who tries again zeroes its start. No mapping stays. With c.Replay the volume is counted at
// last; from then on no other disk opens under its name.
func (v Volumes) Create(ctx context.Context, c VolumeConfig, device string, f Formatter) error {
	c, err := v.check(c)
	if err == nil {
		err = checkNew(c.Expect)
	}
	if err != nil {
		return fmt.Errorf("creating volume %s: %w", c.Name, err)
	}
	disk, err := v.disk(device, os.O_RDWR)
	if err != nil {
		return fmt.Errorf("creating volume %s: %w", c.Name, err)
	}
	if err := v.create(ctx, c, device, disk, f); err != nil {
		return fmt.Errorf("creating volume %s on %s: %w", c.Name, device, err)
	}
	return nil
}

func checkNew(e luks.Expect) error {
	switch {
	case !e.OwnHeader:
		return errors.New("a new volume carries casemate's own token, and its opener has to want it")
	case e.SectorSize != writeUnit:
		return fmt.Errorf("sector size %d, want %d for a new volume", e.SectorSize, writeUnit)
	}
	return nil
}

// create closes disk, since the kernel wants it for itself.
func (v Volumes) create(ctx context.Context, c VolumeConfig, device string, disk *os.File, f Formatter) error {
	created, t, err := v.lay(ctx, c, device, disk)
	if created != nil {
		defer created.Close()
	}
	if err = errors.Join(err, disk.Close()); err != nil {
		return err
	}
	o := &Volume{stack: stack{mapper: v.Mapper}}
	sectors := t.size / devmapper.SectorSize
	if t.cipher.TagSize() > 0 {
		if sectors, err = o.stack.formatTags(t); err != nil {
			return errors.Join(err, o.stack.settle())
		}
	}
	if err := o.open(t, sectors); err != nil {
		return err
	}
	if err := format(ctx, o.Path, o.Size, f); err != nil {
		return errors.Join(fmt.Errorf("formatting: %w", err), o.stack.settle())
	}
	if err := o.stack.settle(); err != nil {
		return fmt.Errorf("closing the new volume: %w", err)
	}
	counted, err := v.replay(c, device, created)
	if err != nil || counted == nil {
		return err
	}
	defer counted.close()
	return counted.withDisk(ctx, counted.begin)
}

// lay writes the header. The volume that it returns, also with an error, is the caller's to close.
func (v Volumes) lay(ctx context.Context, c VolumeConfig, device string, disk *os.File) (*luks.Volume, table, error) {
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, table{}, fmt.Errorf("reading the device's size: %w", err)
	}
	layout := c.Expect.Layout
	if _, err := (&luks.Volume{Layout: layout}).DataSize(uint64(size)); err != nil {
		return nil, table{}, err
	}
	if err := checkBlank(disk, size, int64(layout.Offset)); err != nil {
		return nil, table{}, err
	}
	key, err := v.key(ctx, c.Key)
	if err != nil {
		return nil, table{}, err
	}
	defer clear(key)
	if len(key) < minNewKey {
		return nil, table{}, fmt.Errorf("the key has %d bytes, want at least %d random ones", len(key), minNewKey)
	}
	created, err := createHeader(c, disk, key)
	if err != nil {
		return nil, table{}, err
	}
	t, err := volumeTable(c.mapping(), device, created, uint64(size))
	return created, t, err
}

// checkBlank wants zeros at the device's start and at that of the data.
func checkBlank(disk io.ReaderAt, size, offset int64) error {
	for _, at := range []int64{0, offset} {
		b := make([]byte, min(blankRoom, size-at))
		if n, err := disk.ReadAt(b, at); n < len(b) {
			return fmt.Errorf("reading the device at %d: %d bytes of %d: %w", at, n, len(b), err)
		}
		for i, c := range b {
			if c != 0 {
				return fmt.Errorf("%w: byte %d of the device is set", luks.ErrNotBlank, at+int64(i))
			}
		}
	}
	return nil
}

// Blank reports whether a device reads as one that no volume has been made on: what Create wants. It says nothing about
// who may make one there.
func Blank(c VolumeConfig, device string) (bool, error) {
	disk, err := openBlockDevice(device, os.O_RDONLY)
	if err != nil {
		return false, fmt.Errorf("looking at the disk of volume %s: %w", c.Name, err)
	}
	size, err := disk.Seek(0, io.SeekEnd)
	if err == nil && uint64(size) <= c.Expect.Offset {
		err = fmt.Errorf("%d bytes, want more than the offset %d", size, c.Expect.Offset)
	}
	if err == nil {
		err = checkBlank(disk, size, int64(c.Expect.Offset)) //nolint:gosec // less than size
	}
	closed := disk.Close()
	if errors.Is(err, luks.ErrNotBlank) {
		return false, closed
	}
	if err = errors.Join(err, closed); err != nil {
		return false, fmt.Errorf("looking at the disk of volume %s: %w", c.Name, err)
	}
	return true, nil
}

func createHeader(c VolumeConfig, disk *os.File, key []byte) (*luks.Volume, error) {
	if c.Header == "" {
		return luks.Create(disk, c.Expect.Layout, key, newKeyCost)
	}
	header, err := os.OpenFile(c.Header, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the detached header: %w", err)
	}
	created, err := luks.Create(header, c.Expect.Layout, key, newKeyCost)
	if closed := header.Close(); err == nil && closed != nil {
		created.Close()
		return nil, closed
	}
	return created, err
}
