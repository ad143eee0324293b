// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"encoding/binary"
	"hash/crc32"
)

// checksum is a CRC-32C as ext4 carries it on: started with all ones, never inverted at the end.
type checksum uint32

// noSeed starts the superblock's checksum and the seed of all others.
const noSeed checksum = 0xffffffff

// of continues the checksum over b.
func (c checksum) of(b []byte) checksum {
	return ^checksum(crc32.Update(uint32(^c), crc32.MakeTable(crc32.Castagnoli), b))
}

// uint32 continues the checksum over v in little-endian order.
func (c checksum) uint32(v uint32) checksum {
	return c.of(binary.LittleEndian.AppendUint32(nil, v))
}
