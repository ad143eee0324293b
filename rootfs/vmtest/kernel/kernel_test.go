// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// bzImage builds the smallest thing that extract takes, around a payload.
func bzImage(t *testing.T, image []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	payload := binary.LittleEndian.AppendUint32(w.EncodeAll(image, nil), uint32(len(image)))
	b := make([]byte, 2*sectorSize+16)
	b[offSetupSectors] = 1
	copy(b[offMagic:], magic)
	binary.LittleEndian.PutUint32(b[offPayload:], 16)
	binary.LittleEndian.PutUint32(b[offPayloadLength:], uint32(len(payload)))
	return append(append(b, payload...), "trailing signature"...)
}

func TestExtract(t *testing.T) {
	image := append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel"), 1000)...)
	good := bzImage(t, image)
	if got, err := extract(good); err != nil || !bytes.Equal(got, image) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	corrupt := func(off int, v uint32) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint32(b[off:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"empty":                nil,
		"no magic":             corrupt(offMagic, 0),
		"payload past the end": corrupt(offPayload, 1<<31),
		"long payload":         corrupt(offPayloadLength, 1<<31),
		"short payload":        corrupt(offPayloadLength, 4),
		"no compression":       corrupt(2*sectorSize+16, 0),
		"no ELF":               bzImage(t, []byte("MZ, but not what is wanted")),
	} {
		if _, err := extract(b); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestModuleName(t *testing.T) {
	for in, want := range map[string]string{"kernel/drivers/md/dm-mod.ko.xz": "dm_mod", "dm-mod.ko": "dm_mod", "xts": "xts"} {
		if got := moduleName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
