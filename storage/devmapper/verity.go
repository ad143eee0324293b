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
}

const saltMax = 256

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
	case t.DataBlocks > 1<<50:
		l.fail(fmt.Errorf("%d data blocks", t.DataBlocks))
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
}

func verityBlockSize(n int) bool { return n >= 512 && n <= 4096 && n&(n-1) == 0 }
