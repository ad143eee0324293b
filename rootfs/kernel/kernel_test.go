// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
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

// TestWithModules: the modules of any kernel, compressed or not, with what they need.
func TestWithModules(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "lib/modules/6.1")
	if err := os.MkdirAll(filepath.Join(dir, "kernel"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"modules.builtin": []byte("kernel/fs/in.ko\n"), "kernel/no-elf.ko": []byte("x")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	k, err := WithModules(dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if found, err := k.Modules(t.Context(), []string{"in"}); err != nil || len(found) != 0 {
		t.Errorf("built in: %v, %v", found, err)
	}
	for _, name := range []string{"none", "no-elf"} {
		if _, err := k.Modules(t.Context(), []string{name}); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	for name, dir := range map[string]string{"elsewhere": t.TempDir(), "missing": filepath.Join(filepath.Dir(dir), "6.2")} {
		if _, err := WithModules(dir, t.TempDir()); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestIsModule(t *testing.T) {
	for name, want := range map[string]bool{"a.ko": true, "a.ko.xz": true, "a.ko.zst": true, "a.ko.gz": true, "a.ko.bz2": false, "a.xz": false, "modules.dep": false} {
		if isModule(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}
