// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

const (
	// maxUnpacked bounds what firmware unpacks to; OVMF's two volumes are 13 MB.
	maxUnpacked = 64 << 20

	// maxVolumeParts bounds the files of a volume and the sections of a file.
	maxVolumeParts = 4096

	volumeHeaderSize  = 56 // to the block map
	fileHeaderSize    = 24
	sectionHeaderSize = 4
	lzmaHeaderSize    = 13
)

// Types of the Platform Initialization specification, volume 3.
const (
	fileVolumeImage    = 0x0b
	filePad            = 0xf0
	fileLarge          = 0x01 // attribute: the size is behind the header
	sectionGUIDDefined = 0x02
	sectionVolumeImage = 0x17
	sectionRaw         = 0x19
)

const (
	guidFFS2 = "8c8ce578-8a3d-4f1c-9935-896185c32dd3"
	guidLZMA = "ee4e5898-3914-4259-9d6e-dc7bd79403cf"
)

// ErrNoVolumes says that firmware has no volume that is packed with LZMA, as OVMF's
// own two are.
var ErrNoVolumes = errors.New("firmware has no LZMA section with volumes")

// FirmwareVolumes are the two volumes that OVMF unpacks into memory and measures into
// register 0 of a TPM.
type FirmwareVolumes struct {
	// PEI has the modules of the first phase. They run where they lie, and have
	// written their variables into it by the time that it is measured.
	PEI []byte

	// DXE has everything after it, and is measured as it is here.
	DXE []byte
}

// ParseVolumes unpacks the volumes of an OVMF image, with or without the volume of
// variables before the code (Platform Initialization 1.7, volume 3, chapters 2 and 3).
// Sizes that reach over what holds them, headers with a wrong sum, more than one packed section, and more than
// 64 MiB unpacked are errors.
func ParseVolumes(image []byte) (*FirmwareVolumes, error) {
	if len(image) > MaxFirmwareSize {
		return nil, fmt.Errorf("firmware is %d bytes, at most %d allowed", len(image), MaxFirmwareSize)
	}
	packed, err := packedSection(image)
	if err != nil {
		return nil, fmt.Errorf("reading firmware volumes: %w", err)
	}
	unpacked, err := unpack(packed)
	if err != nil {
		return nil, fmt.Errorf("unpacking firmware volumes: %w", err)
	}
	var found [][]byte
	err = eachSection(unpacked, func(kind byte, content []byte, _ int) error {
		switch kind {
		case sectionRaw: // padding
		case sectionVolumeImage:
			if _, size, err := volumeHeader(content); err != nil || size != len(content) {
				return fmt.Errorf("volume of %d bytes in a section of %d: %w", size, len(content), err)
			}
			found = append(found, content)
		default:
			return fmt.Errorf("section of type %#x, want volumes", kind)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading unpacked firmware: %w", err)
	}
	if len(found) != 2 {
		return nil, fmt.Errorf("reading unpacked firmware: %d volumes, want PEI and DXE", len(found))
	}
	return &FirmwareVolumes{PEI: found[0], DXE: found[1]}, nil
}

// packedSection finds the one section of LZMA in the image's volumes, which follow
// each other to its end.
func packedSection(image []byte) (packed []byte, _ error) {
	for offset := 0; offset < len(image); {
		start, size, err := volumeHeader(image[offset:])
		if err != nil {
			return nil, fmt.Errorf("volume at %#x: %w", offset, err)
		}
		volume := image[offset : offset+size]
		if guidText(volume[16:]) == guidFFS2 {
			err = eachFile(volume, start, func(kind byte, content []byte) error {
				if kind != fileVolumeImage {
					return nil
				}
				return eachSection(content, func(kind byte, content []byte, header int) error {
					data, err := lzmaSection(kind, content, header)
					if data == nil || err != nil {
						return err
					}
					if packed != nil {
						return errors.New("a second LZMA section")
					}
					packed = data
					return nil
				})
			})
		}
		if err != nil {
			return nil, fmt.Errorf("volume at %#x: %w", offset, err)
		}
		offset += size
	}
	if packed == nil {
		return nil, ErrNoVolumes
	}
	return packed, nil
}

// volumeHeader checks the header of the volume that b begins with, and returns where
// its first file and where it ends.
func volumeHeader(b []byte) (start, size int, err error) {
	if len(b) < volumeHeaderSize || string(b[40:44]) != "_FVH" {
		return 0, 0, errors.New("no volume header")
	}
	length := binary.LittleEndian.Uint64(b[32:])
	header := int(binary.LittleEndian.Uint16(b[48:]))
	if length > uint64(len(b)) || header < volumeHeaderSize || header%2 != 0 || uint64(header) > length {
		return 0, 0, fmt.Errorf("header of %d and volume of %d bytes, %d are left", header, length, len(b))
	}
	var sum uint16
	for i := 0; i < header; i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	if sum != 0 {
		return 0, 0, fmt.Errorf("header sums to %#x, want 0", sum)
	}
	start = header
	if extended := int(binary.LittleEndian.Uint16(b[52:])); extended != 0 {
		const extendedSize = 20
		if uint64(extended)+extendedSize > length {
			return 0, 0, fmt.Errorf("extended header at %#x in a volume of %d bytes", extended, length)
		}
		more := uint64(binary.LittleEndian.Uint32(b[extended+16:]))
		if more < extendedSize || uint64(extended)+more > length {
			return 0, 0, fmt.Errorf("extended header of %d bytes at %#x in a volume of %d", more, extended, length)
		}
		start = extended + int(more)
	}
	return start, int(length), nil
}

// eachFile calls f with the type and content of a volume's files, from start on.
func eachFile(volume []byte, start int, f func(kind byte, content []byte) error) error {
	for n := 0; ; n++ {
		start = (start + 7) &^ 7
		if start+fileHeaderSize > len(volume) || bytes.Count(volume[start:start+fileHeaderSize], []byte{0xff}) == fileHeaderSize {
			return nil // the rest is free
		}
		if n == maxVolumeParts {
			return fmt.Errorf("over %d files", maxVolumeParts)
		}
		h := volume[start:]
		size := int(h[20]) | int(h[21])<<8 | int(h[22])<<16
		if h[19]&fileLarge != 0 {
			return fmt.Errorf("file at %#x is a large one, whose form is not known here", start)
		}
		if size < fileHeaderSize || size > len(h) {
			return fmt.Errorf("file at %#x has %d bytes, %d are left", start, size, len(h))
		}
		if h[18] != filePad {
			if err := f(h[18], h[fileHeaderSize:size]); err != nil {
				return fmt.Errorf("file at %#x: %w", start, err)
			}
		}
		start += size
	}
}

// eachSection calls f with the type and content of sections, and the size of the
// header before it.
func eachSection(b []byte, f func(kind byte, content []byte, header int) error) error {
	for n, at := 0, 0; at < len(b); n++ {
		if n == maxVolumeParts {
			return fmt.Errorf("over %d sections", maxVolumeParts)
		}
		rest := b[at:]
		if len(rest) < sectionHeaderSize {
			return fmt.Errorf("section at %#x: %d bytes are left", at, len(rest))
		}
		size, header := int(rest[0])|int(rest[1])<<8|int(rest[2])<<16, sectionHeaderSize
		if size == 0xffffff { // the size is behind the header
			if len(rest) < 2*sectionHeaderSize {
				return fmt.Errorf("section at %#x: %d bytes are left", at, len(rest))
			}
			size, header = int(binary.LittleEndian.Uint32(rest[4:])), 2*sectionHeaderSize
		}
		if size < header || size > len(rest) {
			return fmt.Errorf("section at %#x has %d bytes, %d are left", at, size, len(rest))
		}
		if err := f(rest[3], rest[header:size], header); err != nil {
			return fmt.Errorf("section at %#x: %w", at, err)
		}
		at += (size + 3) &^ 3
	}
	return nil
}

// lzmaSection returns the data of a section that says it is LZMA, nil for others.
func lzmaSection(kind byte, content []byte, header int) ([]byte, error) {
	if kind != sectionGUIDDefined {
		return nil, nil
	}
	if len(content) < guidSize+4 {
		return nil, fmt.Errorf("%d bytes for a GUID and an offset", len(content))
	}
	if guidText(content) != guidLZMA {
		return nil, nil
	}
	// The offset counts from the section's header on.
	offset := int(binary.LittleEndian.Uint16(content[guidSize:])) - header
	if offset < guidSize+4 || offset >= len(content) {
		return nil, fmt.Errorf("data at %d in %d bytes", offset, len(content))
	}
	return content[offset:], nil
}

// unpack decodes LZMA with its header of properties, dictionary and size. The two sizes
// are checked before anything is allocated.
func unpack(packed []byte) ([]byte, error) {
	if len(packed) < lzmaHeaderSize {
		return nil, fmt.Errorf("%d bytes, want a header of %d", len(packed), lzmaHeaderSize)
	}
	dictionary, size := binary.LittleEndian.Uint32(packed[1:]), binary.LittleEndian.Uint64(packed[5:])
	if size > maxUnpacked || dictionary > maxUnpacked {
		return nil, fmt.Errorf("%d bytes with a dictionary of %d, at most %d allowed", size, dictionary, maxUnpacked)
	}
	r, err := lzma.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	unpacked := make([]byte, size)
	if _, err := io.ReadFull(r, unpacked); err != nil {
		return nil, err
	}
	return unpacked, nil
}
