// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Kata hands initdata over as a disk: eight bytes that say so, the length of what
// follows as 64 bits little-endian, the document packed with gzip, zeros to a whole
// sector (kata-containers, src/runtime, "initdata image").
const (
	deviceMagic  = "initdata"
	deviceHeader = 16
	deviceSector = 512

	// maxPacked bounds what is read: a document that does not shrink, and gzip's own.
	maxPacked = MaxSize + 64<<10
)

// ErrNoDevice says that something does not begin as an initdata device.
var ErrNoDevice = errors.New("no initdata device")

// ReadDevice returns the document on a device, 1 to MaxSize bytes, which is the host's
// to write: nothing is known of it before Match. The error wraps ErrNoDevice where the
// device holds something else; any other one says that it claims to hold initdata and
// does not.
func ReadDevice(r io.ReaderAt) ([]byte, error) {
	var header [deviceHeader]byte
	if n, err := r.ReadAt(header[:], 0); n < len(header) {
		return nil, fmt.Errorf("%w: %w", ErrNoDevice, err)
	}
	if string(header[:len(deviceMagic)]) != deviceMagic {
		return nil, ErrNoDevice
	}
	size := binary.LittleEndian.Uint64(header[len(deviceMagic):])
	if size == 0 || size > maxPacked {
		return nil, fmt.Errorf("reading an initdata device: length %d, want 1 to %d", size, maxPacked)
	}
	packed := make([]byte, size)
	if n, err := r.ReadAt(packed, deviceHeader); n < len(packed) {
		return nil, fmt.Errorf("reading an initdata device: %d of %d bytes: %w", n, size, err)
	}
	doc, err := unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("reading an initdata device: %w", err)
	}
	return doc, nil
}

// unpack takes one gzip member that fills packed.
func unpack(packed []byte) ([]byte, error) {
	rest := bytes.NewReader(packed)
	z, err := gzip.NewReader(rest)
	if err != nil {
		return nil, err
	}
	z.Multistream(false)
	doc, err := io.ReadAll(io.LimitReader(z, MaxSize+1))
	switch {
	case err != nil:
		return nil, err
	case len(doc) == 0 || len(doc) > MaxSize:
		return nil, fmt.Errorf("a document of %d bytes or more, want 1 to %d", len(doc), MaxSize)
	case rest.Len() != 0:
		return nil, fmt.Errorf("%d bytes behind the document", rest.Len())
	}
	return doc, nil
}

// Pack returns doc packed as kata's annotation and device have it: one gzip member
// without a time, the same for the same document.
func Pack(doc []byte) ([]byte, error) {
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := w.Write(doc); err != nil {
		return nil, fmt.Errorf("packing initdata: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("packing initdata: %w", err)
	}
	return packed.Bytes(), nil
}

// Device returns the content of a device that holds doc, a whole number of sectors.
func Device(doc []byte) ([]byte, error) {
	packed, err := Pack(doc)
	if err != nil {
		return nil, err
	}
	b := binary.LittleEndian.AppendUint64([]byte(deviceMagic), uint64(len(packed)))
	b = append(b, packed...)
	return append(b, make([]byte, (deviceSector-len(b)%deviceSector)%deviceSector)...), nil
}
