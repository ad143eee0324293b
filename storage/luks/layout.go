// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"errors"
	"fmt"
	"strconv"
)

// The two formats.
const (
	TypeLUKS1 = "luks1"
	TypeLUKS2 = "luks2"
)

// The ciphers of data, named as headers name them.
const (
	CipherAESXTS   = "aes-xts-plain64"
	CipherAEGIS128 = "aegis128-random" // with IntegrityAEAD
)

// The kinds of integrity, named as LUKS2 headers name them.
const (
	IntegrityNone       = ""
	IntegrityHMACSHA256 = "hmac(sha256)" // with CipherAESXTS
	IntegrityAEAD       = "aead"         // the cipher's own tags
)

const (
	sector = 512
	// maxOffset caps where data may begin: no header of the format needs more than its two copies
	// and key areas, and sums stay far from overflowing.
	maxOffset = 1 << 40
)

// Layout is everything in a header that decides how data is read. The sector number that makes the IV is counted
// from 0 at Offset in every volume; other headers are refused.
type Layout struct {
	Type       string // TypeLUKS1 or TypeLUKS2
	Cipher     string
	Integrity  string
	SectorSize int    // bytes encrypted together: 512 or 4096; always 512 in LUKS1
	Offset     uint64 // bytes from the start of the data device, a multiple of SectorSize
	Size       uint64 // bytes of data from Offset on, or 0: up to the device's end ("dynamic")
	Detached   bool   // the header lies on another device; not recorded in headers
}

// Expect is what the opener's measured configuration says about a volume.
type Expect struct {
	Layout
	OwnHeader bool // the header must carry casemate's token; LUKS2 only
}

// ErrWrongKey is returned when no key slot opens with the passphrase.
var ErrWrongKey = errors.New("no key slot opens with this key")

// Mismatch is one difference between the expected and the found layout. Open joins all of them.
type Mismatch struct{ Field, Wanted, Found string }

func (m *Mismatch) Error() string {
	return fmt.Sprintf("%s in the header is %q, want %q", m.Field, m.Found, m.Wanted)
}

// compare returns every difference between what is wanted and what a header says.
func (want Layout) compare(found Layout) error {
	var all []error
	for _, f := range []struct{ field, wanted, found string }{
		{"type", want.Type, found.Type},
		{"cipher", want.Cipher, found.Cipher},
		{"integrity", want.Integrity, found.Integrity},
		{"sector size", strconv.Itoa(want.SectorSize), strconv.Itoa(found.SectorSize)},
		{"offset", strconv.FormatUint(want.Offset, 10), strconv.FormatUint(found.Offset, 10)},
		{"size", sizeText(want.Size), sizeText(found.Size)},
	} {
		if f.wanted != f.found {
			all = append(all, &Mismatch{Field: f.field, Wanted: f.wanted, Found: f.found})
		}
	}
	return errors.Join(all...)
}

func sizeText(size uint64) string {
	if size == 0 {
		return dynamic
	}
	return strconv.FormatUint(size, 10)
}

// keySize returns the bytes of the volume key, or an error for a combination outside the closed list.
func (l Layout) keySize() (int, error) {
	switch [2]string{l.Cipher, l.Integrity} {
	case [2]string{CipherAESXTS, IntegrityNone}:
		return 64, nil
	case [2]string{CipherAESXTS, IntegrityHMACSHA256}:
		return 96, nil
	case [2]string{CipherAEGIS128, IntegrityAEAD}:
		return 16, nil
	}
	return 0, fmt.Errorf("cipher %q with integrity %q, want %q with %q or %q, or %q with %q",
		l.Cipher, l.Integrity, CipherAESXTS, IntegrityNone, IntegrityHMACSHA256, CipherAEGIS128, IntegrityAEAD)
}

// check refuses a layout that this package does not offer.
func (l Layout) check() error {
	_, err := l.keySize()
	switch {
	case l.Type != TypeLUKS1 && l.Type != TypeLUKS2:
		return fmt.Errorf("type %q, want %q or %q", l.Type, TypeLUKS1, TypeLUKS2)
	case err != nil:
		return err
	case l.SectorSize != 512 && l.SectorSize != 4096:
		return fmt.Errorf("sector size %d, want 512 or 4096", l.SectorSize)
	case l.Type == TypeLUKS1 && (l.SectorSize != 512 || l.Integrity != IntegrityNone || l.Size != 0):
		return errors.New("LUKS1 has neither integrity, nor a size, nor sectors other than 512 bytes")
	case l.Offset > maxOffset || l.Offset%uint64(l.SectorSize) != 0:
		return fmt.Errorf("offset %d, want a multiple of %d up to %d", l.Offset, l.SectorSize, uint64(maxOffset))
	case l.Size%uint64(l.SectorSize) != 0:
		return fmt.Errorf("size %d is no multiple of the sector size %d", l.Size, l.SectorSize)
	}
	return nil
}

// Volume is an opened header.
type Volume struct {
	Layout
	UUID string // as the header says; authentic only with Expect.OwnHeader
	// Key is the volume key: 64 bytes for AES-XTS; 96 with HMAC-SHA-256, the HMAC's 32 last; 16 for AEGIS-128.
	Key []byte
}

// Close clears the key.
func (v *Volume) Close() { clear(v.Key) }

// DataSize returns how many bytes from Offset on belong to the volume, on a data device of deviceSize bytes. With
// integrity that is the room of dm-integrity, tags included. A device that is too short, or whose end is not on a
// sector's, is an error: it was cut or it is another.
func (v *Volume) DataSize(deviceSize uint64) (uint64, error) {
	if deviceSize < v.Offset || deviceSize-v.Offset < max(v.Size, uint64(v.SectorSize)) {
		return 0, fmt.Errorf("data device has %d bytes, want at least %d behind offset %d", deviceSize, max(v.Size, uint64(v.SectorSize)), v.Offset)
	}
	if v.Size != 0 {
		return v.Size, nil
	}
	size := deviceSize - v.Offset
	if size%uint64(v.SectorSize) != 0 {
		return 0, fmt.Errorf("data device has %d bytes behind offset %d, want a multiple of %d", size, v.Offset, v.SectorSize)
	}
	return size, nil
}
