// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	// MaxFirmwareSize bounds a firmware image; OVMF is 2 to 16 MiB.
	MaxFirmwareSize = 64 << 20

	pageSize = 4096

	// maxSections bounds the areas that firmware declares; OVMF has under 10.
	maxSections = 64

	// maxDeclared bounds the memory that one image's areas may cover: pages are
	// hashed one by one.
	maxDeclared = 256 << 20

	// The footer ends 32 bytes before the end, where the reset vector is.
	footerTail  = 32
	guidSize    = 16
	entryHeader = guidSize + 2
)

// GUIDs of OVMF's footer table.
const (
	guidFooter      = "96b582de-1fb2-45f7-baea-a366c55a082d"
	guidHashArea    = "7255371f-3a3b-4b04-927b-1da6efa8d454"
	guidResetBlock  = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"
	guidSNPMetadata = "dc886566-984a-4798-a75e-5585a7bf67cc"
)

var (
	// ErrNoFooter says that an image has no OVMF footer table at all.
	ErrNoFooter = errors.New("firmware has no OVMF footer table")

	// ErrNoSNPMetadata says that an image was not built to start under SEV-SNP.
	ErrNoSNPMetadata = errors.New("firmware has no SNP metadata")

	// ErrNoKernelHashes says that an image has no measured page for the hashes of
	// kernel, initrd and command line: those would not be part of the launch digest.
	ErrNoKernelHashes = errors.New("firmware has no kernel-hashes area")

	// ErrNoResetAddress says that an image does not tell where processors after the
	// first start.
	ErrNoResetAddress = errors.New("firmware has no reset address for further processors")
)

// Firmware is an image of OVMF with what its footer table says. The image is not
// copied: it must not change while the Firmware is used.
type Firmware struct {
	image   []byte
	entries map[string][]byte
}

// ParseFirmware reads the footer table of an image: a volume that is mapped so that
// it ends at 4 GiB. Entries stand before the footer, each as data, a 16-bit length of
// the whole entry and a GUID, and are read backwards.
func ParseFirmware(image []byte) (*Firmware, error) {
	if len(image) > MaxFirmwareSize {
		return nil, fmt.Errorf("firmware is %d bytes, at most %d allowed", len(image), MaxFirmwareSize)
	}
	if len(image) < footerTail+entryHeader {
		return nil, fmt.Errorf("%w: it is only %d bytes", ErrNoFooter, len(image))
	}
	end := len(image) - footerTail
	if guidText(image[end-guidSize:end]) != guidFooter {
		return nil, ErrNoFooter
	}
	// The footer's own length covers the whole table.
	total := int(binary.LittleEndian.Uint16(image[end-entryHeader:]))
	if total < entryHeader || total > end {
		return nil, fmt.Errorf("reading firmware footer: table of %d bytes in an image of %d", total, len(image))
	}
	table := image[end-total : end-entryHeader]
	f := &Firmware{image: image, entries: make(map[string][]byte)}
	for len(table) > 0 {
		if len(table) < entryHeader {
			return nil, fmt.Errorf("reading firmware footer: %d stray bytes before the first entry", len(table))
		}
		name := guidText(table[len(table)-guidSize:])
		size := int(binary.LittleEndian.Uint16(table[len(table)-entryHeader:]))
		if size < entryHeader || size > len(table) {
			return nil, fmt.Errorf("reading firmware footer: entry %s has %d bytes, %d are left", name, size, len(table))
		}
		if _, ok := f.entries[name]; ok {
			return nil, fmt.Errorf("reading firmware footer: entry %s is there twice", name)
		}
		f.entries[name] = table[len(table)-size : len(table)-entryHeader]
		table = table[:len(table)-size]
	}
	return f, nil
}

// guidText spells a GUID in memory order: its first three fields are little-endian.
func guidText(b []byte) string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:16])
}

// guidBytes is the inverse of guidText for the constants of this package.
func guidBytes(text string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(b) != guidSize {
		panic("measure: internal error: bad GUID " + text)
	}
	out := binary.LittleEndian.AppendUint32(nil, binary.BigEndian.Uint32(b))
	out = binary.LittleEndian.AppendUint16(out, binary.BigEndian.Uint16(b[4:]))
	out = binary.LittleEndian.AppendUint16(out, binary.BigEndian.Uint16(b[6:]))
	return append(out, b[8:]...)
}

// base is the guest-physical address of the image's first byte.
func (f *Firmware) base() uint64 { return 1<<32 - uint64(len(f.image)) }

// offsetEntry returns the bytes from where an entry's 32-bit distance from the end
// of the image points, at least size of them. The entry must exist.
func (f *Firmware) offsetEntry(name string, size int) ([]byte, error) {
	data := f.entries[name]
	if len(data) != 4 {
		return nil, fmt.Errorf("entry %s has %d bytes of data, want 4", name, len(data))
	}
	distance := binary.LittleEndian.Uint32(data)
	if uint64(distance) > uint64(len(f.image)) || uint64(distance) < uint64(size) {
		return nil, fmt.Errorf("distance %d from the end of %d bytes, want at least %d", distance, len(f.image), size)
	}
	return f.image[len(f.image)-int(distance):], nil
}

// resetAddress is where processors after the first start.
func (f *Firmware) resetAddress() (uint32, error) {
	data, ok := f.entries[guidResetBlock]
	if !ok {
		return 0, ErrNoResetAddress
	}
	if len(data) != 4 {
		return 0, fmt.Errorf("reading reset block: %d bytes, want 4", len(data))
	}
	return binary.LittleEndian.Uint32(data), nil
}

// hashArea is the address of the table of kernel hashes.
func (f *Firmware) hashArea() (uint32, error) {
	data, ok := f.entries[guidHashArea]
	if !ok {
		return 0, ErrNoKernelHashes
	}
	if len(data) != 8 {
		return 0, fmt.Errorf("reading kernel-hashes area: %d bytes, want 8", len(data))
	}
	address, size := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
	if address == 0 || size < hashTablePadded {
		return 0, fmt.Errorf("%w: address %#x, %d bytes, want %d", ErrNoKernelHashes, address, size, hashTablePadded)
	}
	return address, nil
}
