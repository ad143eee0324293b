// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
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

const zerosChunk = directChunk

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

// directChunk is the most that is written at once, in bytes.
const directChunk = 4 << 20

// format opens a mapping for f alone and makes what it writes safe. The page cache is left out: it would hand the
// mapping one block after the other, and each would be a request of its own to encrypt and to tag.
func format(ctx context.Context, path string, size int64, f Formatter) (err error) {
	device, err := os.OpenFile(path, os.O_RDWR|os.O_EXCL|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, device.Close()) }()
	// Memory of its own pages, as O_DIRECT wants it; it also keeps the buffer out of the heap.
	block, err := unix.Mmap(-1, 0, directChunk, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return fmt.Errorf("mapping a buffer: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Munmap(block)) }()
	if err := f.Format(&unitWriter{ctx, device, size, block}, size); err != nil {
		return err
	}
	return device.Sync()
}

// unitWriter refuses writes that would make the kernel read first, or that leave the device, and all of them once
// the context is done. The others it copies into block and writes from there.
type unitWriter struct {
	ctx   context.Context
	w     io.WriterAt
	size  int64
	block []byte
}

func (u *unitWriter) WriteAt(b []byte, at int64) (written int, err error) {
	if at < 0 || at%writeUnit != 0 || len(b)%writeUnit != 0 || int64(len(b)) > u.size-at {
		return 0, fmt.Errorf("writing %d bytes at %d: want multiples of %d up to %d", len(b), at, writeUnit, u.size)
	}
	for written < len(b) {
		if err := u.ctx.Err(); err != nil {
			return written, err
		}
		n, err := u.w.WriteAt(u.block[:copy(u.block, b[written:])], at+int64(written))
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, u.ctx.Err()
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
