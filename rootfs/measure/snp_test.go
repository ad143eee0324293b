// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
)

func snpFirmware(t testing.TB) []byte {
	t.Helper()
	image, err := os.ReadFile("testdata/snp/ovmf_AmdSev_suffix.bin")
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func TestLaunchDigestVectors(t *testing.T) {
	raw, err := os.ReadFile("testdata/snp/digests.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Cases []struct {
			VCPUs    int     `json:"vcpus"`
			Features string  `json:"guest_features"`
			Kernel   *string `json:"kernel"`
			Cmdline  *string `json:"cmdline"`
			Digest   string  `json:"launch_digest"`
		} `json:"cases"`
		Firmware string `json:"ovmf_hash_of_the_suffix_alone"`
	}
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	if len(vectors.Cases) != 4 {
		t.Fatalf("%d cases, want 4", len(vectors.Cases))
	}
	f, err := ParseFirmware(snpFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	var d launchDigest
	d.page(pageNormal, f.base(), f.image)
	if got := hex.EncodeToString(d.value[:]); got != vectors.Firmware {
		t.Errorf("firmware alone: %s, want %s", got, vectors.Firmware)
	}
	cpu, err := ParseCPU("EPYC-v4")
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range vectors.Cases {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			features, err := strconv.ParseUint(c.Features, 0, 64)
			if err != nil {
				t.Fatal(err)
			}
			l := SNPLaunch{Firmware: f, VCPUs: c.VCPUs, CPU: cpu, GuestFeatures: features}
			if c.Kernel != nil {
				l.Kernel = &Kernel{}
				if c.Cmdline != nil {
					l.Kernel.CommandLine = *c.Cmdline
				}
			}
			got, err := l.LaunchDigest()
			if err != nil {
				t.Fatal(err)
			}
			if hex.EncodeToString(got[:]) != c.Digest {
				t.Errorf("got %x, want %s", got, c.Digest)
			}
		})
	}
}

// Whatever enters the launch must show in the digest.
func TestLaunchDigestCoversEveryInput(t *testing.T) {
	f, err := ParseFirmware(snpFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	changed := snpFirmware(t)
	changed[0] ^= 1
	other, err := ParseFirmware(changed)
	if err != nil {
		t.Fatal(err)
	}
	base := func() SNPLaunch {
		return SNPLaunch{Firmware: f, Kernel: &Kernel{Kernel: []byte("k"), Initrd: []byte("i"), CommandLine: "a"}, VCPUs: 2, CPU: 0xa00f11, GuestFeatures: 1}
	}
	seen := map[[48]byte]string{}
	for name, change := range map[string]func(*SNPLaunch){
		"as is":        func(*SNPLaunch) {},
		"firmware":     func(l *SNPLaunch) { l.Firmware = other },
		"kernel":       func(l *SNPLaunch) { l.Kernel.Kernel = []byte("l") },
		"initrd":       func(l *SNPLaunch) { l.Kernel.Initrd = nil },
		"command line": func(l *SNPLaunch) { l.Kernel.CommandLine = "a " },
		"no kernel":    func(l *SNPLaunch) { l.Kernel = nil },
		"processors":   func(l *SNPLaunch) { l.VCPUs = 3 },
		"CPU type":     func(l *SNPLaunch) { l.CPU = 0xa10f10 },
		"features":     func(l *SNPLaunch) { l.GuestFeatures = 0x21 },
	} {
		l := base()
		change(&l)
		got, err := l.LaunchDigest()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if before, ok := seen[got]; ok {
			t.Errorf("%s and %s have the same digest", name, before)
		}
		seen[got] = name
	}
}

// entryAt finds the footer entry with that GUID: the offset of its data and its size.
func entryAt(t *testing.T, image []byte, guid string, size int) int {
	t.Helper()
	i := bytes.LastIndex(image, guidBytes(guid))
	if i < 0 {
		t.Fatalf("no entry %s", guid)
	}
	return i - 2 - size
}

func TestLaunchDigestRefuses(t *testing.T) {
	scrub := func(guid string) func(*testing.T, []byte, *SNPLaunch) {
		return func(t *testing.T, image []byte, _ *SNPLaunch) {
			image[entryAt(t, image, guid, 0)+2] ^= 0xff
		}
	}
	metadata := func(image []byte) []byte { return image[bytes.Index(image, []byte("ASEV")):] }
	put := func(offset int, v uint32) func(*testing.T, []byte, *SNPLaunch) {
		return func(_ *testing.T, image []byte, _ *SNPLaunch) {
			binary.LittleEndian.PutUint32(metadata(image)[offset:], v)
		}
	}
	for name, tt := range map[string]struct {
		change func(*testing.T, []byte, *SNPLaunch)
		is     error
		text   string
	}{
		"no SNP metadata":       {scrub(guidSNPMetadata), ErrNoSNPMetadata, ""},
		"no kernel-hashes area": {scrub(guidHashArea), ErrNoKernelHashes, ""},
		"no reset address":      {scrub(guidResetBlock), ErrNoResetAddress, ""},
		"hashes area too small": {func(t *testing.T, b []byte, _ *SNPLaunch) { clear(b[entryAt(t, b, guidHashArea, 4):][:4]) }, ErrNoKernelHashes, ""},
		"hash table across pages": {func(t *testing.T, b []byte, _ *SNPLaunch) {
			b[entryAt(t, b, guidHashArea, 8)+1] |= 0xf
			b[entryAt(t, b, guidHashArea, 8)] = 0xff
		}, nil, "crosses a page"},
		"metadata beyond the image": {func(t *testing.T, b []byte, _ *SNPLaunch) { b[entryAt(t, b, guidSNPMetadata, 4)+3] = 0xff }, nil, "distance"},
		"metadata distance of zero": {func(t *testing.T, b []byte, _ *SNPLaunch) { clear(b[entryAt(t, b, guidSNPMetadata, 4):][:4]) }, nil, "distance"},
		"wrong signature":           {put(0, 0), nil, "signature"},
		"unknown version":           {put(8, 2), nil, "version 2"},
		"no areas":                  {put(12, 0), nil, "0 areas"},
		"areas without number":      {put(12, 0xffffffff), nil, "4294967295 areas"},
		"areas beyond metadata":     {put(4, 20), nil, "in 20 bytes"},
		"area of odd size":          {put(16+4, 4097), nil, "whole pages"},
		"area of 4 GiB":             {put(16+4, 0xfffff000), nil, "whole pages below 4 GiB"},
		"area that never ends":      {put(16+4, 0xf0000000), nil, "cover over"},
		"unknown kind":              {put(16+8, 99), nil, "not known"},
		"no processors":             {func(_ *testing.T, _ []byte, l *SNPLaunch) { l.VCPUs = 0 }, nil, "0 processors"},
		"processors without number": {func(_ *testing.T, _ []byte, l *SNPLaunch) { l.VCPUs = 1 << 30 }, nil, "processors"},
		"not an SNP guest":          {func(_ *testing.T, _ []byte, l *SNPLaunch) { l.GuestFeatures = 0x20 }, nil, "bit 0"},
		"no CPU type":               {func(_ *testing.T, _ []byte, l *SNPLaunch) { l.CPU = 0 }, nil, "signature is missing"},
		"kernel hashes page is ordinary": {func(t *testing.T, b []byte, _ *SNPLaunch) {
			m := metadata(b)
			for i := range binary.LittleEndian.Uint32(m[12:]) {
				if e := m[16+12*i:]; binary.LittleEndian.Uint32(e[8:]) == areaKernelHashes {
					binary.LittleEndian.PutUint32(e[8:], areaMemory)
				}
			}
		}, ErrNoKernelHashes, ""},
	} {
		t.Run(name, func(t *testing.T) {
			image := snpFirmware(t)
			l := SNPLaunch{Kernel: &Kernel{}, VCPUs: 2, CPU: 0x800f12, GuestFeatures: 1}
			tt.change(t, image, &l)
			f, err := ParseFirmware(image)
			if err != nil {
				t.Fatal(err)
			}
			l.Firmware = f
			digest, err := l.LaunchDigest()
			if err == nil || digest != [48]byte{} {
				t.Fatalf("got %x, %v", digest, err)
			}
			if tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v %q", err, tt.is, tt.text)
			}
		})
	}
}

func TestParseFirmwareRefuses(t *testing.T) {
	good := snpFirmware(t)
	for name, tt := range map[string]struct {
		image []byte
		text  string
	}{
		"nothing":            {nil, "no OVMF footer"},
		"zeros":              {make([]byte, 8192), "no OVMF footer"},
		"too large":          {make([]byte, MaxFirmwareSize+1), "at most"},
		"end cut off":        {good[:len(good)-1], "no OVMF footer"},
		"table over image":   {good[len(good)-footerTail-entryHeader:], "in an image of"},
		"entry over table":   {patched(good, len(good)-footerTail-entryHeader-entryHeader, 0xff, 0xff), "are left"},
		"entry of no length": {patched(good, len(good)-footerTail-entryHeader-entryHeader, 0, 0), "are left"},
		"table of no length": {patched(good, len(good)-footerTail-entryHeader, 0, 0), "table of 0 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseFirmware(tt.image); err == nil || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %q", err, tt.text)
			}
		})
	}
}

func patched(b []byte, offset int, with ...byte) []byte {
	b = bytes.Clone(b)
	copy(b[offset:], with)
	return b
}

func TestParseCPU(t *testing.T) {
	for name, want := range map[string]CPUSignature{
		"EPYC": 0x800f12, "EPYC-v4": 0x800f12, "EPYC-Rome": 0x830f10, "EPYC-Milan": 0xa00f11, "EPYC-Milan-v2": 0xa00f11,
		"EPYC-Genoa": 0xa10f10, "EPYC-Genoa-v1": 0xa10f10, "0xb00f21": 0xb00f21,
	} {
		if got, err := ParseCPU(name); err != nil || got != want {
			t.Errorf("%s: got %#x, %v, want %#x", name, uint32(got), err, uint32(want))
		}
	}
	for _, name := range []string{"", "epyc", "EPYC-", "EPYC-v0", "EPYC-vx", "Opteron", "0x", "0x0", "0x123456789", "host"} {
		if got, err := ParseCPU(name); err == nil {
			t.Errorf("%q: got %#x", name, uint32(got))
		}
	}
}

func FuzzParseFirmware(f *testing.F) {
	f.Add(snpFirmware(f))
	f.Fuzz(func(_ *testing.T, image []byte) {
		firmware, err := ParseFirmware(image)
		if err != nil {
			return
		}
		if areas, err := firmware.snpAreas(); err == nil && len(areas) > maxSections {
			panic("more areas than allowed")
		}
		_, _ = firmware.resetAddress()
		_, _ = firmware.hashArea()
	})
}
