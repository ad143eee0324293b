// SPDX-License-Identifier: Apache-2.0

package devmapper

import "fmt"

// Verity checks every block of a read-only device against a hash tree (kernel device-mapper/verity.rst). A block
// that does not match is an I/O error on every read: options to ignore corruption or to check only once are not
// offered.
type Verity struct {
	HashType       int    // 1, or 0 for trees of the original format
	DataDevice     string // absolute path
	HashDevice     string // absolute path, may be DataDevice
	DataBlockSize  int    // bytes, a power of two from 512 to 4096 (the page size)
	HashBlockSize  int    // the same
	DataBlocks     uint64
	HashStartBlock uint64 // in hash blocks, of the tree's root level; behind a superblock if there is one
	Algorithm      string // "sha256", "sha384" or "sha512"
	RootHash       []byte // as long as the algorithm's output
	Salt           []byte // at most 256 bytes

	// FEC is where the kernel finds parity to repair blocks with, nil for nowhere.
	FEC *VerityFEC
	// Signature is a PKCS #7 signature in DER, at most 32767 bytes, without its content, over the root hash as lower
	// case hexadecimal text. With one the kernel makes the mapping only if a key of its own trusted keyrings signed
	// (dm-verity, root_hash_sig_key_desc); empty for none. It never stands in for a root hash that is known.
	Signature []byte
}

// VerityFEC is Reed-Solomon parity over the data, the tree and what follows the tree on its device (kernel
// device-mapper/verity.rst, use_fec_from_device). A repaired block has to match its hash like any other, so parity
// that the host made up can only fail to repair. Both block sizes must be the same.
type VerityFEC struct {
	Device     string // absolute path, may be the tree's
	StartBlock uint64 // of the parity on Device, in blocks
	Blocks     uint64 // that are covered, the data's included
	Roots      int    // bytes of parity in every 255: 2 to 24
}

const (
	saltMax      = 256
	signatureMax = 32767 // of a key of type user
	blocksMax    = 1 << 50
)

func (t Verity) kind() string { return "verity" }

func (t Verity) sectors() uint64 { return t.DataBlocks * uint64(t.DataBlockSize/SectorSize) }

func (t Verity) params(l *line) {
	size := map[string]int{"sha256": 32, "sha384": 48, "sha512": 64}[t.Algorithm]
	switch {
	case t.HashType != 0 && t.HashType != 1:
		l.fail(fmt.Errorf("hash type %d", t.HashType))
	case !verityBlockSize(t.DataBlockSize) || !verityBlockSize(t.HashBlockSize):
		l.fail(fmt.Errorf("block sizes %d and %d", t.DataBlockSize, t.HashBlockSize))
	case size == 0:
		l.fail(fmt.Errorf("algorithm %q", t.Algorithm))
	case len(t.RootHash) != size:
		l.fail(fmt.Errorf("root hash has %d bytes, want %d", len(t.RootHash), size))
	case len(t.Salt) > saltMax:
		l.fail(fmt.Errorf("salt has %d bytes, want at most %d", len(t.Salt), saltMax))
	case t.DataBlocks > blocksMax:
		l.fail(fmt.Errorf("%d data blocks", t.DataBlocks))
	case len(t.Signature) > signatureMax:
		l.fail(fmt.Errorf("signature has %d bytes, want at most %d", len(t.Signature), signatureMax))
	case t.FEC != nil:
		l.fail(t.checkFEC())
	}
	if l.err != nil {
		return
	}
	l.number(uint64(t.HashType))
	l.device(t.DataDevice)
	l.device(t.HashDevice)
	l.number(uint64(t.DataBlockSize))
	l.number(uint64(t.HashBlockSize))
	l.number(t.DataBlocks)
	l.number(t.HashStartBlock)
	l.word(t.Algorithm)
	l.hex(t.RootHash)
	l.hex(t.Salt)
	count := 0
	if t.FEC != nil {
		count += 8
	}
	if len(t.Signature) > 0 {
		count += 2
	}
	if count > 0 {
		l.number(uint64(count))
	}
	if t.FEC != nil {
		l.word("use_fec_from_device")
		l.device(t.FEC.Device)
		l.option("fec_start", t.FEC.StartBlock)
		l.option("fec_blocks", t.FEC.Blocks)
		l.option("fec_roots", uint64(t.FEC.Roots)) //nolint:gosec // checked
	}
	if len(t.Signature) > 0 {
		l.word("root_hash_sig_key_desc")
		l.word(signatureKey(t.Signature))
	}
}

func (t Verity) checkFEC() error {
	f := t.FEC
	switch {
	case t.DataBlockSize != t.HashBlockSize:
		return fmt.Errorf("parity needs equal block sizes, not %d and %d", t.DataBlockSize, t.HashBlockSize)
	case f.Roots < 2 || f.Roots > 24:
		return fmt.Errorf("%d bytes of parity in 255, want 2 to 24", f.Roots)
	case f.StartBlock > blocksMax || f.Blocks > blocksMax || f.Blocks < t.DataBlocks:
		return fmt.Errorf("parity of %d blocks at block %d for %d of data", f.Blocks, f.StartBlock, t.DataBlocks)
	}
	return nil
}

func verityBlockSize(n int) bool { return n >= 512 && n <= 4096 && n&(n-1) == 0 }
