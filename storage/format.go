// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
)

// writeUnit is the size in bytes of which every write to a new device is a multiple, and its place too. A block is
// encrypted as a whole, so to change a part of it the kernel would first read the rest, which has no valid tag yet.
const writeUnit = 4096

// Formatter lays out what a new device holds. It must write every block that is read before it is written by whoever
// uses the device: other blocks have no valid tag, and reading them is an I/O error. Writes come in multiples
// of 4096 bytes at multiples of 4096, up to size; others are refused.
type Formatter interface {
	Format(w io.WriterAt, size int64) error
}

// Zeros is a Formatter for a device that is used as it is: every block reads as zeros.
type Zeros struct{}

const zerosChunk = 1 << 20

// Format writes zeros from 0 to size.
func (Zeros) Format(w io.WriterAt, size int64) error {
	b := make([]byte, zerosChunk)
	for at := int64(0); at < size; at += zerosChunk {
		if _, err := w.WriteAt(b[:min(zerosChunk, size-at)], at); err != nil {
			return err
		}
	}
	return nil
}

// format opens a mapping for f alone and makes what it writes safe.
func format(ctx context.Context, path string, size int64, f Formatter) error {
	device, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL, 0)
	if err != nil {
		return err
	}
	if err := f.Format(&unitWriter{ctx, device, size}, size); err != nil {
		return errors.Join(err, device.Close())
	}
	return errors.Join(device.Sync(), device.Close())
}

// unitWriter refuses writes that would make the kernel read first, or that leave the device, and all of them once
// the context is done.
type unitWriter struct {
	ctx  context.Context
	w    io.WriterAt
	size int64
}

func (u *unitWriter) WriteAt(b []byte, at int64) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	if at < 0 || at%writeUnit != 0 || len(b)%writeUnit != 0 || int64(len(b)) > u.size-at {
		return 0, fmt.Errorf("writing %d bytes at %d: want multiples of %d up to %d", len(b), at, writeUnit, u.size)
	}
	return u.w.WriteAt(b, at)
}

// openBlockDevice opens what must be a block device that nothing else uses.
func openBlockDevice(path string, flag int) (*os.File, error) {
	f, err := os.OpenFile(path, flag|os.O_EXCL, 0) // without O_CREATE: EBUSY when mounted or mapped
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != os.ModeDevice {
		err = fmt.Errorf("%s is no block device", path)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
