// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// Offsets in the real-mode header of a bzImage, kernel Documentation/arch/x86/boot.rst.
const (
	offSetupSectors  = 0x1f1
	offMagic         = 0x202
	offPayload       = 0x248
	offPayloadLength = 0x24c
	headerEnd        = 0x250
	sectorSize       = 512

	magic    = "HdrS"
	imageMax = 512 << 20 // bytes; Debian's cloud kernel has 60 MB
)

// extract returns the ELF image inside a bzImage. The payload is the compressed image with its size, 4 bytes in
// little-endian order, behind it.
func extract(b []byte) ([]byte, error) {
	if len(b) < headerEnd || string(b[offMagic:offMagic+4]) != magic {
		return nil, errors.New("no bzImage")
	}
	e := binary.LittleEndian
	start := (uint64(b[offSetupSectors])+1)*sectorSize + uint64(e.Uint32(b[offPayload:]))
	length := uint64(e.Uint32(b[offPayloadLength:]))
	if length < 8 || start+length > uint64(len(b)) {
		return nil, fmt.Errorf("payload of %d bytes at %d in a file of %d", length, start, len(b))
	}
	payload := b[start : start+length]
	size := e.Uint32(payload[length-4:])
	if size > imageMax {
		return nil, fmt.Errorf("image of %d bytes, at most %d are expected", size, imageMax)
	}
	r, err := zstd.NewReader(bytes.NewReader(payload[:length-4]))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	image := make([]byte, size)
	if _, err := io.ReadFull(r, image); err != nil {
		return nil, fmt.Errorf("decompressing: %w", err)
	}
	if !bytes.HasPrefix(image, []byte("\x7fELF")) {
		return nil, errors.New("the payload is no ELF image")
	}
	return image, nil
}
