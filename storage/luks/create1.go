// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"encoding/binary"
	"fmt"

	"github.com/google/uuid"
)

// LUKS1Offset is where data begins behind the headers that CreateLUKS1 and `buildah mkcw` write.
const LUKS1Offset = (v1FirstArea + v1SlotCount*v1AreaSectors) * sector

const (
	v1Hashed      = "sha256"
	v1FirstArea   = 8   // sectors: the header's 592 bytes in a block of 4096
	v1AreaSectors = 504 // 256000 bytes of stripes in blocks of 4096
	v1DigestCount = 4000
)

// CreateLUKS1 writes the header that `buildah mkcw` writes, AES-256 in XTS mode without integrity, for the guests that
// open nothing newer. It has one key slot, of PBKDF2-SHA-256 with the given iterations, 1000 and more. What is written
// only over zeros, and in which order, and who clears what, is as with Create.
func CreateLUKS1(target Target, passphrase []byte, iterations int) (*Volume, error) {
	layout := Layout{Type: TypeLUKS1, Cipher: CipherAESXTS, SectorSize: sector, Offset: LUKS1Offset}
	if err := checkIterations(iterations); err != nil {
		return nil, fmt.Errorf("creating LUKS1: %w", err)
	}
	if err := checkPassphrase(passphrase); err != nil {
		return nil, fmt.Errorf("creating LUKS1: %w", err)
	}
	if err := checkBlank(target, layout); err != nil {
		return nil, fmt.Errorf("creating LUKS1: %w", err)
	}
	size, err := layout.keySize()
	if err != nil {
		return nil, fmt.Errorf("creating LUKS1: %w", err)
	}
	v := &Volume{Layout: layout, UUID: uuid.NewString(), Key: random(size)}
	s := slot{kdf: kdf{Type: KDFPBKDF2, Hash: v1Hashed, Iterations: iterations, Salt: random(v1SaltSize)},
		afHash: v1Hashed, offset: v1FirstArea * sector, keySize: size}
	area, err := s.lock(v.Key, passphrase)
	if err == nil {
		err = writeParts(target, []part{{int64(s.offset), area}, {0, v.encode1(s)}})
	}
	if err != nil {
		v.Close()
		return nil, fmt.Errorf("creating LUKS1: %w", err)
	}
	return v, nil
}

// encode1 is the LUKS1 header with one active slot, filled up to the first area.
func (v *Volume) encode1(first slot) []byte {
	b := make([]byte, v1FirstArea*sector)
	put := func(at int, n uint32) { binary.BigEndian.PutUint32(b[at:], n) }
	copy(b, magicPrimary)
	binary.BigEndian.PutUint16(b[6:], 1)
	copy(b[v1Cipher:], "aes")
	copy(b[v1Mode:], "xts-plain64")
	copy(b[v1Hash:], v1Hashed)
	put(v1Payload, LUKS1Offset/sector)
	put(v1KeyBytes, uint32(len(v.Key)))
	d := digest{hash: v1Hashed, iterations: v1DigestCount, salt: random(v1SaltSize), sum: make([]byte, v1DigestSize)}
	copy(b[v1Digest:], d.of(v.Key))
	copy(b[v1Salt:], d.salt)
	put(v1Iterations, v1DigestCount)
	copy(b[v1UUID:], v.UUID)
	for i := range v1SlotCount {
		at := v1Slots + i*v1SlotSize
		put(at, v1Disabled)
		put(at+40, uint32(v1FirstArea+i*v1AreaSectors))
		put(at+44, stripes)
	}
	put(v1Slots, v1Active)
	put(v1Slots+4, uint32(first.kdf.Iterations))
	copy(b[v1Slots+8:], first.kdf.Salt)
	return b
}
