// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is the zstd window that RFC 8878 (3.1.1.1.2) asks every decoder to
// support. Larger ones would cost that much memory a layer.
const maxWindow = 8 << 20

// decompressor turns the bytes of a layer as stored into its tar stream. Both
// decoders read their input to its end: every gzip member (RFC 1952, 2.2), every
// zstd frame, skippable ones included (RFC 8878, 3), and anything else behind
// the last one is an error.
type decompressor interface {
	io.Reader
	// reset starts over with another input.
	reset(r io.Reader) error
}

type unzstd struct{ dec *zstd.Decoder }

func (u *unzstd) reset(r io.Reader) error { return u.dec.Reset(r) }

func (u *unzstd) Read(p []byte) (int, error) { return u.dec.Read(p) }

// decompressors keeps decoders between layers.
type decompressors struct{ gzip, zstd sync.Pool }

// get returns a decoder for c, which is not plain. put takes it back.
func (d *decompressors) get(c compression, r io.Reader) (dec decompressor, put func(), err error) {
	pool := &d.zstd
	if c == gzipped {
		pool = &d.gzip
	}
	dec, _ = pool.Get().(decompressor)
	if dec == nil {
		if dec, err = newDecompressor(c); err != nil {
			return nil, nil, err
		}
	}
	put = func() { pool.Put(dec) }
	if err := dec.reset(r); err != nil {
		put()
		return nil, nil, compressionError(err)
	}
	return dec, put, nil
}

func newDecompressor(c compression) (decompressor, error) {
	if c == gzipped {
		return newGunzip(), nil
	}
	// The stages of a layer already run beside each other, so that the decoder
	// needs no goroutines of its own.
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxWindow))
	if err != nil {
		return nil, fmt.Errorf("setting up zstd: %w", err)
	}
	return &unzstd{dec: dec}, nil
}

func compressionError(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // not even a header
	}
	return fmt.Errorf("%w: %w", ErrCompression, err)
}
