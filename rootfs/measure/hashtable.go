// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto/sha256"
	"encoding/binary"
)

// The table of kernel hashes that QEMU puts into guest memory and OVMF compares what
// it loads with.
const (
	guidHashTable   = "9438d606-4f22-4cc9-b479-a793d411fd21"
	guidHashCmdline = "97d02dd8-bd20-4c94-aa78-e7714d36ab2a"
	guidHashInitrd  = "44baf731-3a2f-4bd7-9af1-41e29169781d"
	guidHashKernel  = "4de79437-abd2-427f-b835-d5b172d2045b"

	hashTableSize   = entryHeader + 3*(entryHeader+sha256.Size)
	hashTablePadded = (hashTableSize + 15) &^ 15
)

// Kernel is what QEMU loads directly. Without an initrd QEMU hashes no bytes, as with
// an empty one.
type Kernel struct {
	// Kernel and Initrd are the files as given to QEMU.
	Kernel, Initrd []byte

	// CommandLine is the text after -append, without the NUL that QEMU adds.
	CommandLine string
}

// hashPage is the measured page with the table at offset; the table must fit.
func (k *Kernel) hashPage(offset uint32) []byte {
	table := make([]byte, 0, hashTablePadded)
	entry := func(guid string, size int, data []byte) {
		table = append(table, guidBytes(guid)...)
		table = binary.LittleEndian.AppendUint16(table, uint16(size))
		table = append(table, data...)
	}
	line := sha256.Sum256(append([]byte(k.CommandLine), 0))
	initrd, kernel := sha256.Sum256(k.Initrd), sha256.Sum256(k.Kernel)
	entry(guidHashTable, hashTableSize, nil)
	entry(guidHashCmdline, entryHeader+sha256.Size, line[:])
	entry(guidHashInitrd, entryHeader+sha256.Size, initrd[:])
	entry(guidHashKernel, entryHeader+sha256.Size, kernel[:])

	page := make([]byte, pageSize)
	copy(page[offset:], table)
	return page
}
