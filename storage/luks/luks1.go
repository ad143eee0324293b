// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets in the LUKS1 header; integers are big-endian and areas are counted in sectors of 512 bytes (LUKS1
// specification, section 2.1). The key slots begin at v1Slots and have v1SlotSize bytes each.
const (
	v1Cipher     = 8
	v1Mode       = 40
	v1Hash       = 72
	v1Payload    = 104
	v1KeyBytes   = 108
	v1Digest     = 112
	v1Salt       = 132
	v1Iterations = 164
	v1UUID       = 168
	v1Slots      = 208
	v1SlotCount  = 8
	v1SlotSize   = 48
	v1End        = v1Slots + v1SlotCount*v1SlotSize
	v1Active     = 0x00AC71F3
	v1Disabled   = 0x0000DEAD
	v1DigestSize = 20
	v1SaltSize   = 32
)

// parse1 checks the first bytes of a LUKS1 device, at least v1End of them.
func parse1(b []byte, detached bool) (*header, error) {
	number := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	cipher, err1 := text(b[v1Cipher:v1Mode])
	mode, err2 := text(b[v1Mode:v1Hash])
	hashName, err3 := text(b[v1Hash:v1Payload])
	uuid, err4 := text(b[v1UUID:v1Slots])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, fmt.Errorf("reading LUKS1 header: %w", err)
	}
	h := &header{
		Layout:  Layout{Type: TypeLUKS1, Cipher: cipher + "-" + mode, SectorSize: sector, Offset: uint64(number(v1Payload)) * sector, Detached: detached},
		uuid:    uuid,
		keySize: int(number(v1KeyBytes)),
		digest: digest{hash: hashName, iterations: int(number(v1Iterations)), salt: bytes.Clone(b[v1Salt:v1Iterations]),
			sum: bytes.Clone(b[v1Digest:v1Salt])},
	}
	if err := h.check1(); err != nil {
		return nil, fmt.Errorf("reading LUKS1 header: %w", err)
	}
	var used areas
	for i := range v1SlotCount {
		at := v1Slots + i*v1SlotSize
		switch state := number(at); state {
		case v1Disabled:
			continue
		case v1Active:
		default:
			return nil, fmt.Errorf("reading LUKS1 header: key slot %d has state %#x", i, state)
		}
		s := slot{id: i, afHash: hashName, offset: uint64(number(at+40)) * sector, keySize: h.keySize,
			kdf: kdf{Type: KDFPBKDF2, Hash: hashName, Iterations: int(number(at + 4)), Salt: bytes.Clone(b[at+8 : at+40])}}
		if n := number(at + 44); n != stripes {
			return nil, fmt.Errorf("reading LUKS1 header: key slot %d has %d stripes, want %d", i, n, stripes)
		}
		if err := checkIterations(s.kdf.Iterations); err != nil {
			return nil, fmt.Errorf("reading LUKS1 header: key slot %d: %w", i, err)
		}
		limit := h.Offset
		if detached {
			limit = maxOffset
		}
		if err := used.add(s.offset, uint64(areaLen(s.keySize)), v1End, limit); err != nil {
			return nil, fmt.Errorf("reading LUKS1 header: key slot %d: %w", i, err)
		}
		h.slots = append(h.slots, s)
	}
	return h, nil
}

// check1 checks all but the slots.
func (h *header) check1() error {
	want, err := h.Layout.keySize()
	switch {
	case err != nil:
		return err
	case h.keySize != want:
		return fmt.Errorf("key of %d bytes, want %d", h.keySize, want)
	case !validUUID(h.uuid):
		return fmt.Errorf("UUID %q", h.uuid)
	}
	if _, ok := hashOf(h.digest.hash); !ok {
		return fmt.Errorf("hash %q, want sha1, sha256 or sha512", h.digest.hash)
	}
	if err := checkIterations(h.digest.iterations); err != nil {
		return fmt.Errorf("digest: %w", err)
	}
	return h.Layout.check()
}

// text returns a field up to its first zero; behind that it must be all zero.
func text(field []byte) (string, error) {
	name, rest, ended := bytes.Cut(field, []byte{0})
	if !ended || !zero(rest) {
		return "", fmt.Errorf("text field %q has no clean end", field)
	}
	return string(name), nil
}

func zero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

func validUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, c := range []byte(s) {
		dash := i == 8 || i == 13 || i == 18 || i == 23
		hexDigit := c >= '0' && c <= '9' || c >= 'a' && c <= 'f'
		if dash != (c == '-') || !dash && !hexDigit {
			return false
		}
	}
	return true
}

// areas are the parts of a header that have an owner.
type areas [][2]uint64

// add takes size bytes from offset on, which must lie in [low, high) and on nobody's bytes.
func (a *areas) add(offset, size, low, high uint64) error {
	if offset < low || offset > high || size > high-offset {
		return fmt.Errorf("area of %d bytes at %d, want it within %d to %d", size, offset, low, high)
	}
	for _, other := range *a {
		if offset < other[1] && other[0] < offset+size {
			return fmt.Errorf("area of %d bytes at %d overlaps another at %d", size, offset, other[0])
		}
	}
	*a = append(*a, [2]uint64{offset, offset + size})
	return nil
}
