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
