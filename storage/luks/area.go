// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"crypto/aes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"hash"
	"io"

	"golang.org/x/crypto/xts"
)

const (
	stripes     = 4000 // LUKS_STRIPES; no writer uses another number
	areaKeySize = 64   // AES-256 in XTS mode
)

// slot is one key slot: where a copy of the volume key lies, and what makes the key to it.
type slot struct {
	id      int
	kdf     kdf
	afHash  string
	offset  uint64 // bytes from the header's start
	keySize int    // bytes of the volume key
}

// areaLen is the length in bytes of the encrypted stripes, whole sectors.
func areaLen(keySize int) int {
	return (keySize*stripes + sector - 1) / sector * sector
}

// unlock returns the bytes that the slot gives for the passphrase: the volume key or, as its digest then shows,
// something else. The caller clears them.
func (s slot) unlock(header io.ReaderAt, passphrase []byte) ([]byte, error) {
	area := make([]byte, areaLen(s.keySize))
	if _, err := header.ReadAt(area, int64(s.offset)); err != nil {
		return nil, fmt.Errorf("reading key slot %d at %d: %w", s.id, s.offset, noEOF(err))
	}
	defer clear(area)
	key, err := s.kdf.derive(passphrase, areaKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher of key slot %d: %w", s.id, err)
	}
	for i := 0; i < len(area); i += sector {
		c.Decrypt(area[i:i+sector], area[i:i+sector], uint64(i/sector))
	}
	newHash, ok := hashOf(s.afHash)
	if !ok {
		return nil, fmt.Errorf("merging key slot %d: hash %q is not known", s.id, s.afHash)
	}
	return merge(area, s.keySize, newHash()), nil
}

// lock returns the encrypted stripes of the volume key for the slot.
func (s slot) lock(volumeKey, passphrase []byte) ([]byte, error) {
	key, err := s.kdf.derive(passphrase, areaKeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	c, err := xts.NewCipher(aes.NewCipher, key)
	if err != nil {
		return nil, fmt.Errorf("making the cipher of key slot %d: %w", s.id, err)
	}
	newHash, ok := hashOf(s.afHash)
	if !ok {
		return nil, fmt.Errorf("splitting the key of slot %d: hash %q is not known", s.id, s.afHash)
	}
	area := make([]byte, areaLen(s.keySize))
	split(area, volumeKey, newHash())
	for i := 0; i < len(area); i += sector {
		c.Encrypt(area[i:i+sector], area[i:i+sector], uint64(i/sector))
	}
	return area, nil
}

// fold mixes all stripes but the last into block (LUKS1 specification, section 2.4).
func fold(block, area []byte, h hash.Hash) {
	for i := range stripes - 1 {
		subtle.XORBytes(block, block, area[i*len(block):(i+1)*len(block)])
		diffuse(block, h)
	}
}

// merge joins the stripes of an area into the key.
func merge(area []byte, keySize int, h hash.Hash) []byte {
	block := make([]byte, keySize)
	fold(block, area, h)
	last := area[(stripes-1)*keySize : stripes*keySize]
	subtle.XORBytes(block, block, last)
	return block
}

// split fills an area with stripes that merge into the key; all but the last are random.
func split(area, key []byte, h hash.Hash) {
	n := len(key)
	rand.Read(area[:(stripes-1)*n]) // never fails
	block := make([]byte, n)
	defer clear(block)
	fold(block, area, h)
	subtle.XORBytes(area[(stripes-1)*n:stripes*n], block, key)
}

// diffuse replaces each piece of block, as long as the hash, by the hash of its number and itself.
func diffuse(block []byte, h hash.Hash) {
	var number [4]byte
	var sum [64]byte
	for i := 0; i*h.Size() < len(block); i++ {
		piece := block[i*h.Size() : min((i+1)*h.Size(), len(block))]
		binary.BigEndian.PutUint32(number[:], uint32(i))
		h.Reset()
		h.Write(number[:])
		h.Write(piece)
		copy(piece, h.Sum(sum[:0]))
	}
	clear(sum[:])
}

// noEOF turns an end of the device into a failure that no caller takes for a normal end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
