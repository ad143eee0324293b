// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Offsets in the binary part of a LUKS2 header; integers are big-endian (LUKS2 specification, section 2.1).
const (
	v2Size       = 8
	v2Sequence   = 16
	v2Label      = 24
	v2Algorithm  = 72
	v2Salt       = 104
	v2UUID       = 168
	v2Subsystem  = 208
	v2Offset     = 256
	v2Padding    = 264
	v2Checksum   = 448
	v2End        = 512
	binarySize   = 4096
	checksumName = "sha256"
	// A copy has one of the sizes minHeader, twice that and so on. The format goes on to 4 MiB; 32 slots and as
	// many tokens need some 64 KiB.
	minHeader = 16 << 10
	maxHeader = 1 << 20
)

// read2 reads both copies, each byte once. first are the first binarySize bytes of the device.
func read2(r io.ReaderAt, first []byte, detached bool) (*header, error) {
	size := binary.BigEndian.Uint64(first[v2Size:])
	if size < minHeader || size > maxHeader || size&(size-1) != 0 {
		return nil, fmt.Errorf("reading LUKS2 header: a copy has %d bytes, want a power of two from %d to %d", size, minHeader, maxHeader)
	}
	both := make([]byte, 2*size)
	copy(both, first)
	if n, err := r.ReadAt(both[binarySize:], binarySize); n < len(both)-binarySize {
		return nil, fmt.Errorf("reading LUKS2 header: %d bytes of %d: %w", n+binarySize, len(both), noEOF(err))
	}
	primary, secondary := both[:size], both[size:]
	if err := checkCopy(primary, magicPrimary, 0); err != nil {
		return nil, fmt.Errorf("reading LUKS2 header: primary copy: %w", err)
	}
	if err := checkCopy(secondary, magicSecondary, size); err != nil {
		return nil, fmt.Errorf("reading LUKS2 header: secondary copy: %w", err)
	}
	if err := sameCopies(primary, secondary); err != nil {
		return nil, fmt.Errorf("reading LUKS2 header: %w", err)
	}
	uuid, err := text(primary[v2UUID:v2Subsystem])
	if err != nil || !validUUID(uuid) {
		return nil, fmt.Errorf("reading LUKS2 header: UUID %q", primary[v2UUID:v2Subsystem])
	}
	m, err := parseMetadata(primary[binarySize:])
	if err != nil {
		return nil, fmt.Errorf("reading LUKS2 metadata: %w", err)
	}
	h, err := m.header(size, detached)
	if err != nil {
		return nil, fmt.Errorf("reading LUKS2 metadata: %w", err)
	}
	h.uuid = uuid
	return h, nil
}

// checkCopy checks one copy by itself.
func checkCopy(b []byte, magic string, offset uint64) error {
	algorithm, err := text(b[v2Algorithm:v2Salt])
	switch {
	case string(b[:6]) != magic:
		return errors.New("no signature")
	case binary.BigEndian.Uint16(b[6:]) != 2:
		return fmt.Errorf("version %d, want 2", binary.BigEndian.Uint16(b[6:]))
	case binary.BigEndian.Uint64(b[v2Size:]) != uint64(len(b)):
		return fmt.Errorf("size %d, want %d", binary.BigEndian.Uint64(b[v2Size:]), len(b))
	case binary.BigEndian.Uint64(b[v2Offset:]) != offset:
		return fmt.Errorf("says it lies at %d, found at %d", binary.BigEndian.Uint64(b[v2Offset:]), offset)
	case err != nil || algorithm != checksumName:
		return fmt.Errorf("checksum algorithm %q, want %q", b[v2Algorithm:v2Salt], checksumName)
	case !zero(b[v2Padding:v2Checksum]) || !zero(b[v2End:binarySize]):
		return errors.New("bytes set in its padding")
	}
	want := checksum(b)
	if found := b[v2Checksum : v2Checksum+sha256.Size]; !bytes.Equal(found, want[:]) {
		return fmt.Errorf("checksum %x, want %x", found, want)
	}
	if !zero(b[v2Checksum+sha256.Size : v2End]) {
		return errors.New("bytes set behind its checksum")
	}
	return nil
}

// checksum is the hash over a copy with its checksum's field as zeros.
func checksum(b []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(b[:v2Checksum])
	h.Write(make([]byte, v2End-v2Checksum))
	h.Write(b[v2End:])
	return [sha256.Size]byte(h.Sum(nil))
}

// sameCopies compares what the copies share: all but signature, salt, offset and checksum.
func sameCopies(a, b []byte) error {
	for _, part := range []struct {
		name     string
		from, to int
	}{
		{"sequence number", v2Sequence, v2Label},
		{"label", v2Label, v2Algorithm},
		{"UUID", v2UUID, v2Subsystem},
		{"subsystem", v2Subsystem, v2Offset},
		{"metadata", binarySize, len(a)},
	} {
		if !bytes.Equal(a[part.from:part.to], b[part.from:part.to]) {
			return fmt.Errorf("the two copies differ in their %s (after a cut-off update the owner runs `cryptsetup repair`)", part.name)
		}
	}
	return nil
}

// encodeCopy writes one copy of size bytes.
func encodeCopy(size uint64, magic string, offset uint64, uuid string, salt, metadata []byte) []byte {
	b := make([]byte, size)
	copy(b, magic)
	binary.BigEndian.PutUint16(b[6:], 2)
	binary.BigEndian.PutUint64(b[v2Size:], size)
	binary.BigEndian.PutUint64(b[v2Sequence:], 1)
	copy(b[v2Algorithm:], checksumName)
	copy(b[v2Salt:v2UUID], salt)
	copy(b[v2UUID:], uuid)
	binary.BigEndian.PutUint64(b[v2Offset:], offset)
	copy(b[binarySize:], metadata)
	sum := checksum(b)
	copy(b[v2Checksum:], sum[:])
	return b
}
