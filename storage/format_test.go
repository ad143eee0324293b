// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// formatter is a Formatter that is a function.
type formatter func(w io.WriterAt, size int64) error

func (f formatter) Format(w io.WriterAt, size int64) error { return f(w, size) }

func TestFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 3*writeUnit+zerosChunk), 0o600); err != nil {
		t.Fatal(err)
	}
	size := int64(2*writeUnit + zerosChunk)
	if err := format(t.Context(), path, size, Zeros{}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil || len(bytes.Trim(b[:size], "\x00")) > 0 || bytes.IndexByte(b[size:], 0) >= 0 {
		t.Errorf("want zeros up to the size and nothing behind: %v", err)
	}
	if err := format(t.Context(), filepath.Join(t.TempDir(), "none"), size, Zeros{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no device: got %v", err)
	}
}

// TestFormatPassesThePageCacheBy gives one write that is longer than the buffer and lies at an odd address: it arrives
// whole, and in few requests.
func TestFormatPassesThePageCacheBy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	const size = 2*directChunk + 3*writeUnit
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	content := make([]byte, size-writeUnit+1)[1:]
	for i := range content {
		content[i] = byte(i / 11)
	}
	calls := 0
	err := format(t.Context(), path, size, formatter(func(to io.WriterAt, _ int64) error {
		u := to.(*unitWriter)
		device := u.w.(*os.File)
		if flags, err := unix.FcntlInt(device.Fd(), unix.F_GETFL, 0); err != nil || flags&unix.O_DIRECT == 0 {
			t.Errorf("flags %#x, %v: want O_DIRECT", flags, err)
		}
		u.w = writerAt(func(b []byte, at int64) (int, error) {
			calls++
			return device.WriteAt(b, at)
		})
		n, err := to.WriteAt(content, writeUnit)
		if n != len(content) {
			t.Errorf("%d bytes written, want %d", n, len(content))
		}
		return err
	}))
	b, err2 := os.ReadFile(path)
	if err != nil || err2 != nil || !bytes.Equal(b[writeUnit:], content) || calls != 3 {
		t.Errorf("got %v, %v after %d calls, want 3 and the content", err, err2, calls)
	}
}

// TestFormatReportsWhatADeviceTook before it failed.
func TestFormatReportsWhatADeviceTook(t *testing.T) {
	failed := errors.New("device is gone")
	u := &unitWriter{ctx: t.Context(), size: 4 * writeUnit, block: make([]byte, writeUnit), w: writerAt(func(b []byte, at int64) (int, error) {
		if at > 0 {
			return 512, failed
		}
		return len(b), nil
	})}
	if n, err := u.WriteAt(make([]byte, 3*writeUnit), 0); n != writeUnit+512 || !errors.Is(err, failed) {
		t.Errorf("got %d, %v", n, err)
	}
}

// writerAt is an io.WriterAt that is a function.
type writerAt func(b []byte, at int64) (int, error)

func (w writerAt) WriteAt(b []byte, at int64) (int, error) { return w(b, at) }

// TestFormatRefusesWrites that the kernel could not do without reading, or that leave the device.
func TestFormatRefusesWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	const size = 4 * writeUnit
	for name, w := range map[string]struct {
		at int64
		n  int
	}{
		"off its place": {1024, writeUnit}, "part of a block": {0, 1024}, "behind the end": {size, writeUnit},
		"over the end": {size - writeUnit, 2 * writeUnit}, "before the start": {-writeUnit, writeUnit},
	} {
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		err := format(t.Context(), path, size, formatter(func(to io.WriterAt, _ int64) error {
			_, err := to.WriteAt(bytes.Repeat([]byte{1}, w.n), w.at)
			return err
		}))
		if b, err2 := os.ReadFile(path); err == nil || err2 != nil || len(b) != size || bytes.IndexByte(b, 1) >= 0 {
			t.Errorf("%s: got %v, %v", name, err, err2)
		}
	}
}

func TestFormatStopsWithItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(path, make([]byte, writeUnit), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := format(ctx, path, writeUnit, Zeros{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
