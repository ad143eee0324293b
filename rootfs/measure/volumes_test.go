// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

func TestParseVolumes(t *testing.T) {
	image := measuretest.OVMF("pei", "dxe")
	variables := measuretest.Volume(make([]byte, 100))
	copy(variables[16:], "another GUID") // whose sum is then another
	binary.LittleEndian.PutUint16(variables[50:], 0)
	var sum uint16
	for i := 0; i < 72; i += 2 {
		sum -= binary.LittleEndian.Uint16(variables[i:])
	}
	binary.LittleEndian.PutUint16(variables[50:], sum)
	for name, image := range map[string][]byte{"code": image, "variables and code": slices.Concat(variables, image)} {
		v, err := ParseVolumes(image)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !bytes.Equal(v.PEI, measuretest.Volume([]byte("pei"))) || !bytes.Equal(v.DXE, measuretest.Volume([]byte("dxe"))) {
			t.Errorf("%s: got %q and %q", name, v.PEI, v.DXE)
		}
	}
}

func TestHostileVolumes(t *testing.T) {
	good := measuretest.OVMF("pei", "dxe")
	le := binary.LittleEndian
	edit := func(change func(b []byte)) []byte {
		b := bytes.Clone(good)
		change(b)
		return b
	}
	// resum makes the first volume's header whole again.
	resum := func(b []byte) {
		le.PutUint16(b[50:], 0)
		var sum uint16
		for i := 0; i < 72; i += 2 {
			sum -= le.Uint16(b[i:])
		}
		le.PutUint16(b[50:], sum)
	}
	of := func(unpacked ...[]byte) []byte {
		return measuretest.OVMFOf(measuretest.Packed(slices.Concat(unpacked...)))
	}
	volume := measuretest.VolumeSection(0x17, measuretest.Volume([]byte("pei")))
	header := func(dictionary uint32, size uint64) []byte {
		b := le.AppendUint64(le.AppendUint32([]byte{0x5d}, dictionary), size)
		return measuretest.OVMFOf(measuretest.PackedAs(append(b, make([]byte, 100)...)))
	}
	const file = 72 + 32 // the first one is padding
	for name, tt := range map[string]struct {
		image []byte
		want  string
	}{
		"nothing":                      {nil, ErrNoVolumes.Error()},
		"no volume":                    {make([]byte, 4096), "no volume header"},
		"cut in its header":            {good[:50], "no volume header"},
		"truncated volume":             {good[:200], "are left"},
		"length past the end":          {edit(func(b []byte) { le.PutUint64(b[32:], 1<<63); resum(b) }), "are left"},
		"length of nothing":            {edit(func(b []byte) { le.PutUint64(b[32:], 0); resum(b) }), "are left"},
		"header longer than volume":    {edit(func(b []byte) { le.PutUint16(b[48:], 0xfffe) }), "are left"},
		"a flipped bit in the header":  {edit(func(b []byte) { b[44] ^= 1 }), "sums to"},
		"extended header past the end": {edit(func(b []byte) { le.PutUint16(b[52:], 0xfff0); resum(b) }), "extended header"},
		"extended header of nothing":   {edit(func(b []byte) { le.PutUint16(b[52:], 80); clear(b[96:100]); resum(b) }), "extended header of 0 bytes"},
		"another GUID":                 {edit(func(b []byte) { b[16] ^= 1; resum(b) }), ErrNoVolumes.Error()},
		"file past the end":            {edit(func(b []byte) { b[file+22] = 0x7f }), "file at 0x68"},
		"file of nothing":              {edit(func(b []byte) { clear(b[file+20 : file+23]) }), "has 0 bytes"},
		"large file":                   {edit(func(b []byte) { b[file+19] = fileLarge }), "large one"},
		"section past the end":         {edit(func(b []byte) { b[file+24+2] = 0x7f }), "section at 0x0 has"},
		"section of nothing":           {edit(func(b []byte) { clear(b[file+24 : file+27]) }), "section at 0x0 has 0 bytes"},
		"data before its section":      {edit(func(b []byte) { le.PutUint16(b[file+24+20:], 3) }), "data at -1"},
		"data past its section":        {edit(func(b []byte) { le.PutUint16(b[file+24+20:], 0xffff) }), "data at"},
		"GUID not found":               {edit(func(b []byte) { b[file+24+4] ^= 1 }), ErrNoVolumes.Error()},
		"a GUID cut short":             {measuretest.OVMFOf(measuretest.VolumeSection(2, []byte("short"))), "5 bytes for a GUID"},
		"sections of one byte":         {measuretest.OVMFOf([]byte{1}), "1 bytes are left"},
		"an extended size cut short":   {measuretest.OVMFOf([]byte{0xff, 0xff, 0xff, 2}), "4 bytes are left"},
		"two packed sections":          {measuretest.OVMFOf(slices.Concat(measuretest.Packed(volume), measuretest.Packed(volume))), "second LZMA"},
		"two packed volumes":           {slices.Concat(of(volume, volume), of(volume, volume)), "second LZMA"},
		"LZMA bomb":                    {header(1<<20, 1<<40), "at most 67108864"},
		"LZMA of unknown size":         {header(1<<20, 1<<64-1), "at most 67108864"},
		"LZMA dictionary":              {header(1<<31, 1<<20), "at most 67108864"},
		"LZMA that ends early":         {header(1<<20, 1<<20), "unpacking"},
		"LZMA header cut short":        {measuretest.OVMFOf(measuretest.PackedAs([]byte{0x5d})), "want a header"},
		"no volume unpacked":           {of(measuretest.VolumeSection(0x19, nil)), "0 volumes"},
		"one volume":                   {of(volume), "1 volumes"},
		"three volumes":                {of(volume, volume, volume), "3 volumes"},
		"something else unpacked":      {of(volume, measuretest.VolumeSection(0x10, nil)), "type 0x10"},
		"no volume in its section":     {of(measuretest.VolumeSection(0x17, []byte("no"))), "no volume header"},
		"a volume shorter than that":   {of(measuretest.VolumeSection(0x17, append(measuretest.Volume(nil), 0, 0, 0, 0))), "in a section of"},
		"over the cap":                 {make([]byte, MaxFirmwareSize+1), "at most"},
	} {
		if v, err := ParseVolumes(tt.image); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v, want %q", name, v != nil, err, tt.want)
		}
	}
}

// TestUnpackBomb: a size that the data does not have is found without believing it.
func TestUnpackBomb(t *testing.T) {
	packed := measuretest.Packed(make([]byte, 1<<20))[24:]
	if out, err := unpack(packed); err != nil || len(out) != 1<<20 {
		t.Fatalf("%d bytes, %v", len(out), err)
	}
	binary.LittleEndian.PutUint64(packed[5:], 1<<20+1)
	if out, err := unpack(packed); err == nil {
		t.Errorf("unpacked %d bytes", len(out))
	}
}

// firmwareEvents are what a boot of measuretest.OVMF logs, with a digest that the
// machine gave the PEI volume.
func firmwareEvents(v *FirmwareVolumes) []FirmwareEvent {
	sum := func(data []byte) []byte { s := sha256.Sum256(data); return s[:] }
	blob := func(at uint64, size int) []byte {
		return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, at), uint64(size))
	}
	return []FirmwareEvent{
		{eventCRTMVersion, sum([]byte{0, 0}), []byte{0, 0}},
		{eventFirmware, sum([]byte("of this machine")), blob(0x820000, len(v.PEI))},
		{eventFirmware, sum(v.DXE), blob(0x900000, len(v.DXE))},
		{eventSeparator, sum(make([]byte, 4)), make([]byte, 4)},
	}
}

func TestPCR0(t *testing.T) {
	v, err := ParseVolumes(measuretest.OVMF("pei", "dxe"))
	if err != nil {
		t.Fatal(err)
	}
	var want [32]byte
	for _, data := range [][]byte{{0, 0}, []byte("of this machine"), measuretest.Volume([]byte("dxe")), make([]byte, 4)} {
		sum := sha256.Sum256(data)
		want = sha256.Sum256(append(want[:], sum[:]...))
	}
	got, err := v.PCR0(firmwareEvents(v), nil, crypto.SHA256)
	if err != nil || !bytes.Equal(got, want[:]) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	other, err := v.PCR0(func() []FirmwareEvent { e := firmwareEvents(v); e[1].Digest[0] ^= 1; return e }(), nil, crypto.SHA256)
	if err != nil || bytes.Equal(got, other) {
		t.Errorf("another PEI volume: %x, %v", other, err)
	}
}

func TestPCR0Refuses(t *testing.T) {
	v, err := ParseVolumes(measuretest.OVMF("pei", "dxe"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(e []FirmwareEvent) []FirmwareEvent
		want   string
	}{
		"no events":          {func([]FirmwareEvent) []FirmwareEvent { return nil }, "0 events"},
		"an option ROM more": {func(e []FirmwareEvent) []FirmwareEvent { return append(e, e[3]) }, "5 events"},
		"another order":      {func(e []FirmwareEvent) []FirmwareEvent { e[0], e[1] = e[1], e[0]; return e }, "type 0x80000008, want 0x8"},
		"volumes exchanged":  {func(e []FirmwareEvent) []FirmwareEvent { e[1], e[2] = e[2], e[1]; return e }, "the firmware has"},
		"a changed version":  {func(e []FirmwareEvent) []FirmwareEvent { e[0].Data = []byte{1, 0}; return e }, "the firmware has"},
		"another DXE volume": {func(e []FirmwareEvent) []FirmwareEvent { e[2].Digest[31] ^= 1; return e }, "the firmware has"},
		"another PEI size":   {func(e []FirmwareEvent) []FirmwareEvent { e[1].Data[8]++; return e }, "the PEI volume"},
		"another DXE size":   {func(e []FirmwareEvent) []FirmwareEvent { e[2].Data[15]++; return e }, "the DXE volume"},
		"a blob of no size":  {func(e []FirmwareEvent) []FirmwareEvent { e[2].Data = e[2].Data[:8]; return e }, "want an address"},
		"a digest too short": {func(e []FirmwareEvent) []FirmwareEvent { e[1].Digest = e[1].Digest[:20]; return e }, "digest of 20 bytes"},
		"an error separator": {func(e []FirmwareEvent) []FirmwareEvent {
			s := sha256.Sum256([]byte{1, 0, 0, 0})
			e[3].Data, e[3].Digest = []byte{1, 0, 0, 0}, s[:]
			return e
		}, "want zeros"},
	} {
		if got, err := v.PCR0(tt.change(firmwareEvents(v)), nil, crypto.SHA256); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %x, %v, want %q", name, got, err, tt.want)
		}
	}
	if _, err := v.PCR0(firmwareEvents(v), nil, crypto.SHA1); err == nil {
		t.Error("SHA-1 was taken")
	}
	changed, err := ParseVolumes(measuretest.OVMF("pei", "dxf"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := changed.PCR0(firmwareEvents(v), nil, crypto.SHA256); !errors.Is(err, ErrOtherFirmware) {
		t.Errorf("a firmware with one byte changed: %x, %v", got, err)
	}
}

// TestMachineRefuses: a machine that cannot be looked for is an error, never belief.
func TestMachineRefuses(t *testing.T) {
	v, err := ParseVolumes(measuretest.OVMF("pei", "dxe"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := v.PCR0(firmwareEvents(v), &OVMFMachine{MemoryMiB: 512, CPUs: 1}, crypto.SHA256); !errors.Is(err, ErrUnknownPEI) {
		t.Errorf("an unknown volume: %x, %v", got, err)
	}
	for _, m := range []OVMFMachine{{0, 1}, {63, 1}, {maxOVMFMemory + 1, 1}, {512, 0}, {512, MaxVCPUs + 1}} {
		if got, err := v.PCR0(firmwareEvents(v), &m, crypto.SHA256); err == nil || !strings.Contains(err.Error(), "want 64 to") {
			t.Errorf("%+v: %x, %v", m, got, err)
		}
	}
}

// TestOVMFWindows: how addresses above memory are laid out, by hand.
func TestOVMFWindows(t *testing.T) {
	const g = uint64(1) << 30
	for memory, want := range map[uint64][2]window{ // the least, and with 40 bits
		512:   {{64 * g, 36, 32 * g, 32 * g}, {64 * g, 40, 896 * g, 128 * g}},
		4096:  {{64 * g, 36, 32 * g, 32 * g}, {64 * g, 40, 896 * g, 128 * g}},
		65536: {{128 * g, 37, 96 * g, 32 * g}, {128 * g, 40, 896 * g, 128 * g}},
	} {
		all := OVMFMachine{MemoryMiB: memory, CPUs: 1}.windows()
		if all[0] != want[0] || !slices.Contains(all[1:], want[1]) {
			t.Errorf("%d MiB: %+v, want %+v", memory, all, want)
		}
	}
	for memory, want := range map[uint64]uint64{512: 512 << 20, 2815: 2815 << 20, 2816: 2 * g, 4096: 2 * g} {
		if got := (OVMFMachine{MemoryMiB: memory}).low(); got != want {
			t.Errorf("%d MiB: %#x below 4 GiB, want %#x", memory, got, want)
		}
	}
}

// FuzzParseVolumes: no image makes it panic or unpack more than its cap.
func FuzzParseVolumes(f *testing.F) {
	f.Add(measuretest.OVMF("pei", "dxe"))
	f.Fuzz(func(t *testing.T, image []byte) {
		v, err := ParseVolumes(image)
		if err == nil && len(v.PEI)+len(v.DXE) > maxUnpacked {
			t.Errorf("unpacked %d and %d bytes", len(v.PEI), len(v.DXE))
		}
	})
}
