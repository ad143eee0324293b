// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"errors"
	"fmt"
)

// Cipher is an encryption that [Crypt] offers. The zero value is none.
type Cipher int

const (
	_ Cipher = iota
	// AESXTS is AES-256 in XTS mode: secrecy only. Its key has 64 bytes.
	AESXTS
	// AESXTSHMACSHA256 adds an HMAC-SHA-256 over every sector, kept in the metadata of an [Integrity] device
	// underneath with a tag size of 32. Its key has 96 bytes: 64 for XTS, then 32 for the HMAC.
	AESXTSHMACSHA256
	// AEGIS128 is AEGIS-128 with a random IV for every write: the IV of 16 bytes and the tag of 16 are kept in the
	// metadata of an [Integrity] device underneath, whose tag size is 32. Its key has 16 bytes.
	AEGIS128
)

// spec returns the kernel's name of the cipher, its key size and its tag size, the IV's included, in bytes.
func (c Cipher) spec() (name string, keySize, tagSize int) {
	switch c {
	case AESXTS:
		return "aes-xts-plain64", 64, 0
	case AESXTSHMACSHA256:
		return "capi:authenc(hmac(sha256),xts(aes))-plain64", 96, 32
	case AEGIS128:
		return "capi:aegis128-random", 16, 32
	}
	return "", 0, 0
}

// TagSize is what the cipher keeps for every sector on the [Integrity] device underneath, in bytes: 0 for one that
// has no tags.
func (c Cipher) TagSize() int {
	_, _, size := c.spec()
	return size
}

// String is the kernel's name of the cipher.
func (c Cipher) String() string {
	if name, _, _ := c.spec(); name != "" {
		return name
	}
	return fmt.Sprintf("Cipher(%d)", int(c))
}

// KeySize is the size in bytes of the key that the cipher takes, or 0 for a value that is none.
func (c Cipher) KeySize() int {
	_, size, _ := c.spec()
	return size
}

// Crypt encrypts a device (kernel device-mapper/dm-crypt.rst).
type Crypt struct {
	LengthSectors   uint64
	Cipher          Cipher
	Key             []byte // Cipher.KeySize bytes; the caller clears it
	Device          string // absolute path
	OffsetSectors   uint64 // where the data begins on Device
	IVOffsetSectors uint64 // added to the sector number that makes the IV
	SectorSize      int    // bytes that are encrypted together: 512 or 4096
	AllowDiscards   bool   // tells the host which blocks are unused; refused with an authenticating cipher
	NoWorkqueues    bool   // encrypts in the caller's context: faster on quick disks
}

func (t Crypt) kind() string    { return "crypt" }
func (t Crypt) sectors() uint64 { return t.LengthSectors }

func (t Crypt) params(l *line) {
	name, keySize, tagSize := t.Cipher.spec()
	switch {
	case name == "":
		l.fail(fmt.Errorf("no cipher %d", int(t.Cipher)))
	case len(t.Key) != keySize:
		l.fail(fmt.Errorf("key has %d bytes, want %d", len(t.Key), keySize))
	case t.SectorSize != 512 && t.SectorSize != 4096:
		l.fail(fmt.Errorf("sector size %d, want 512 or 4096", t.SectorSize))
	case t.LengthSectors%uint64(t.SectorSize/SectorSize) != 0:
		l.fail(fmt.Errorf("length %d sectors is no multiple of the sector size %d", t.LengthSectors, t.SectorSize))
	case tagSize > 0 && t.AllowDiscards:
		l.fail(errors.New("discards would leave sectors without a tag"))
	}
	if l.err != nil {
		return
	}
	l.word(name)
	l.hex(t.Key)
	l.number(t.IVOffsetSectors)
	l.device(t.Device)
	l.number(t.OffsetSectors)
	var opts []string
	if t.AllowDiscards {
		opts = append(opts, "allow_discards")
	}
	if t.NoWorkqueues {
		opts = append(opts, "no_read_workqueue", "no_write_workqueue")
	}
	if t.SectorSize != SectorSize {
		opts = append(opts, fmt.Sprintf("sector_size:%d", t.SectorSize))
	}
	if tagSize > 0 {
		opts = append(opts, fmt.Sprintf("integrity:%d:aead", tagSize))
	}
	l.options(opts)
}
