// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"hash"
)

const (
	// MaxSalt is the longest salt in bytes: the superblock has room for no more.
	MaxSalt = 256
	// minBlock and maxBlock bound both block sizes: the kernel reads pages.
	minBlock, maxBlock = 512, 4096
	// maxBlocks bounds the data blocks so that no offset overflows.
	maxBlocks = 1 << 50
)

// Params is what a tree is made with. There are no defaults: a zero value is an
// error wherever it is used.
type Params struct {
	HashType      int    // 1, or 0 for the original format of Chrome OS
	Algorithm     string // "sha256", "sha384" or "sha512"
	Salt          []byte // hashed before (type 1) or behind (type 0) each block; at most MaxSalt
	DataBlockSize int    // bytes, a power of two from 512 to 4096
	HashBlockSize int    // the same
	DataBlocks    uint64 // at least 1
	// HashOffset is where the tree begins on the hash device, in bytes: a multiple
	// of HashBlockSize, behind the superblock if there is one.
	HashOffset uint64
}

// Pin is a tree with its root hash: all that a device must equal.
type Pin struct {
	Params
	RootHash []byte // as long as the algorithm's output
}

func newHash(algorithm string) func() hash.Hash {
	switch algorithm {
	case "sha256":
		return sha256.New
	case "sha384":
		return sha512.New384
	case "sha512":
		return sha512.New
	}
	return nil
}

func validBlock(n int) bool { return n >= minBlock && n <= maxBlock && n&(n-1) == 0 }

// Validate returns an error that names the member, the wanted and the found value.
func (p Params) Validate() error {
	switch {
	case p.HashType != 0 && p.HashType != 1:
		return fmt.Errorf("verity hash type %d: want 0 or 1", p.HashType)
	case newHash(p.Algorithm) == nil:
		return fmt.Errorf("verity algorithm %.32q: want sha256, sha384 or sha512", p.Algorithm)
	case len(p.Salt) > MaxSalt:
		return fmt.Errorf("verity salt of %d bytes: want at most %d", len(p.Salt), MaxSalt)
	case !validBlock(p.DataBlockSize):
		return fmt.Errorf("verity data block size %d: want a power of two from %d to %d", p.DataBlockSize, minBlock, maxBlock)
	case !validBlock(p.HashBlockSize):
		return fmt.Errorf("verity hash block size %d: want a power of two from %d to %d", p.HashBlockSize, minBlock, maxBlock)
	case p.DataBlocks == 0 || p.DataBlocks > maxBlocks:
		return fmt.Errorf("verity data blocks %d: want 1 to %d", p.DataBlocks, uint64(maxBlocks))
	case p.HashOffset%uint64(p.HashBlockSize) != 0 || p.HashOffset > maxBlocks*minBlock:
		return fmt.Errorf("verity hash offset %d: want a multiple of the hash block size %d", p.HashOffset, p.HashBlockSize)
	}
	return nil
}

// Validate checks the parameters and the root hash's length.
func (p Pin) Validate() error {
	if err := p.Params.Validate(); err != nil {
		return err
	}
	if want := newHash(p.Algorithm)().Size(); len(p.RootHash) != want {
		return fmt.Errorf("verity root hash of %d bytes: %s has %d", len(p.RootHash), p.Algorithm, want)
	}
	return nil
}

// Repeats reports, as an error that names the first difference, whether what a
// device or an option says about a tree equals the pin.
func (p Pin) Repeats(found Params) error {
	for _, m := range []struct {
		name        string
		want, found any
	}{
		{"hash type", p.HashType, found.HashType},
		{"algorithm", p.Algorithm, found.Algorithm},
		{"data block size", p.DataBlockSize, found.DataBlockSize},
		{"hash block size", p.HashBlockSize, found.HashBlockSize},
		{"data blocks", p.DataBlocks, found.DataBlocks},
		{"hash offset", p.HashOffset, found.HashOffset},
	} {
		if m.want != m.found {
			return fmt.Errorf("verity %s: want %v, found %v", m.name, m.want, m.found)
		}
	}
	if !bytes.Equal(p.Salt, found.Salt) {
		return fmt.Errorf("verity salt: want %x, found %x", p.Salt, found.Salt)
	}
	return nil
}
