// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

func krunLaunch(t testing.TB) KrunLaunch {
	t.Helper()
	f, err := ParseKrunLibrary(measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", "initrd")...))
	if err != nil {
		t.Fatal(err)
	}
	return KrunLaunch{Firmware: f, CPUs: 2, MemoryMiB: 512, GuestFeatures: 1}
}

// sparse is a page that is zero but for some bytes, in hex.
type sparse map[int]string

func (s sparse) page(t *testing.T) []byte {
	t.Helper()
	page := make([]byte, 4096)
	for at, text := range s {
		b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		copy(page[at:], b)
	}
	return page
}

// TestKrunDigestByTable computes the digest of one guest a second time, from bytes: the first
// states as rows of a dump, the boot parameters as bytes, and each page with its own
// 112 bytes of PAGE_INFO. Nothing of it comes from the code under test.
func TestKrunDigestByTable(t *testing.T) {
	segments := sparse{
		0x00: "0000 9300 ffff0000", 0x10: "00f0 9a00 ffff0000 0000ffff00000000",
		0x20: "0000 9200 ffff0000", 0x30: "0000 9300 ffff0000", 0x40: "0000 9300 ffff0000", 0x50: "0000 9300 ffff0000",
		0x60: "0000 0000 ffff0000", 0x70: "0000 8200 ffff0000", 0x80: "0000 0000 ffff0000", 0x90: "0000 8300 ffff0000",
		0xd0: "0010", 0x148: "40", 0x158: "10", 0x160: "0004", 0x168: "f00fffff", 0x170: "02",
		0x268: "0604070006040700", 0x3b0: "01", 0x3e8: "01",
	}
	first, other := sparse{0x178: "f0ff", 0x1d8: "f08f", 0x328: "f08f", 0x330: "0070"}, sparse{0x178: "f3ff"}
	for at, text := range segments {
		first[at], other[at] = text, text
	}
	for _, tt := range []struct {
		memory  uint64
		fpu     bool
		regions sparse
	}{
		{512, false, sparse{0x1e8: "02", 0x2d0 + 20: "0000100000000000 0100f01f00000000 01000000"}},
		{4096, true, sparse{0x1e8: "03", 0x2d0 + 20: "0000100000000000 0000f0cf00000000 01000000", 0x2d0 + 40: "0000000001000000 0100003000000000 01000000"}},
	} {
		first, other := maps.Clone(first), maps.Clone(other)
		if tt.fpu {
			first[0x408], first[0x410], other[0x408], other[0x410] = "801f", "7f03", "801f", "7f03"
		}
		boot := sparse{
			0x1f4: "02000000", 0x1fe: "55aa", 0x202: "48647253", 0x210: "ff", 0x218: "0000a000 00100000",
			0x228: "00000200", 0x230: "00000001", 0x238: "00020000",
			0x2d0: "0000000000000000 00fc090000000000 01000000",
		}
		for at, text := range tt.regions {
			boot[at] = text
		}
		type row struct {
			address uint64
			kind    byte
			content []byte // nil is not hashed
		}
		var rows []row
		for i := range 16 {
			page := make([]byte, 4096)
			if i == 0 {
				copy(page, "qboot")
			}
			rows = append(rows, row{0xffff0000 + uint64(i)*4096, 1, page})
		}
		rows = append(rows,
			row{0x1000000, 1, sparse{0: hex.EncodeToString([]byte("kernel"))}.page(t)}, row{0x1001000, 1, make([]byte, 4096)},
			row{0xa00000, 1, sparse{0: hex.EncodeToString([]byte("initrd"))}.page(t)}, row{0x7000, 1, boot.page(t)},
			row{0, 3, nil}, row{0x5000, 5, nil}, row{0x6000, 6, nil},
			row{0x8000, 3, nil}, row{0x9000, 3, nil}, row{0xa000, 3, nil}, row{0xb000, 3, nil}, row{0xc000, 3, nil}, row{0xd000, 3, nil}, row{0xe000, 3, nil},
			row{0xfffffffff000, 2, first.page(t)}, row{0xfffffffff000, 2, other.page(t)})
		digest := make([]byte, 48)
		for _, r := range rows {
			contents := make([]byte, 48)
			if r.content != nil {
				sum := sha512.Sum384(r.content)
				copy(contents, sum[:])
			}
			var address [8]byte
			binary.LittleEndian.PutUint64(address[:], r.address)
			sum := sha512.Sum384(slices.Concat(digest, contents, []byte{0x70, 0, r.kind, 0, 0, 0, 0, 0}, address[:]))
			copy(digest, sum[:])
		}
		l := krunLaunch(t)
		l.MemoryMiB, l.FPU = tt.memory, tt.fpu
		if got, err := l.LaunchDigest(); err != nil || !bytes.Equal(got[:], digest) {
			t.Errorf("%d MiB: %x, %v, want %x", tt.memory, got, err, digest)
		}
	}
}

// TestKrunDigestOfEachInput: whatever differs shows, and nothing of it twice.
func TestKrunDigestOfEachInput(t *testing.T) {
	seen := make(map[string]string)
	for name, change := range map[string]func(*KrunLaunch){
		"nothing":         func(*KrunLaunch) {},
		"qboot":           func(l *KrunLaunch) { l.Firmware.Qboot[qbootSize-1] ^= 1 },
		"kernel":          func(l *KrunLaunch) { l.Firmware.Kernel[0x1fff] ^= 1 },
		"kernel's place":  func(l *KrunLaunch) { l.Firmware.KernelAddress += 0x1000 },
		"initrd":          func(l *KrunLaunch) { l.Firmware.Initrd[0] ^= 1 },
		"a larger initrd": func(l *KrunLaunch) { l.Firmware.Initrd = append(l.Firmware.Initrd, make([]byte, 4096)...) },
		"one processor":   func(l *KrunLaunch) { l.CPUs = 1 },
		"more of them":    func(l *KrunLaunch) { l.CPUs = 3 },
		"memory":          func(l *KrunLaunch) { l.MemoryMiB = 513 },
		"below the gap":   func(l *KrunLaunch) { l.MemoryMiB = 3327 },
		"over the gap":    func(l *KrunLaunch) { l.MemoryMiB = 3329 },
		"more over it":    func(l *KrunLaunch) { l.MemoryMiB = 4096 },
		"features":        func(l *KrunLaunch) { l.GuestFeatures = 0x21 },
		"the FPU's state": func(l *KrunLaunch) { l.FPU = true },
	} {
		l := krunLaunch(t)
		change(&l)
		got, err := l.LaunchDigest()
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if before, ok := seen[string(got[:])]; ok {
			t.Errorf("%s and %s have one digest", name, before)
		}
		seen[string(got[:])] = name
	}
}

func TestKrunLaunchRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*KrunLaunch)
		want   string
	}{
		"no processor":              {func(l *KrunLaunch) { l.CPUs = 0 }, "0 processors"},
		"more than libkrun counts":  {func(l *KrunLaunch) { l.CPUs = 256 }, "256 processors"},
		"no SNP guest":              {func(l *KrunLaunch) { l.GuestFeatures = 0x20 }, "lack bit 0"},
		"no memory":                 {func(l *KrunLaunch) { l.MemoryMiB = 0 }, "the kernel ends at 0x1002000"},
		"memory before the kernel":  {func(l *KrunLaunch) { l.MemoryMiB = 16 }, "the kernel ends at 0x1002000"},
		"memory over its cap":       {func(l *KrunLaunch) { l.MemoryMiB = MaxKrunMemory + 1 }, "at most 4194304"},
		"memory that overflows":     {func(l *KrunLaunch) { l.MemoryMiB = 1 << 60 }, "at most 4194304"},
		"memory to the device gap":  {func(l *KrunLaunch) { l.MemoryMiB = 3328 }, "in two ways"},
		"a kernel over the gap":     {func(l *KrunLaunch) { l.MemoryMiB, l.Firmware.KernelAddress = 8192, 0xd0000000 }, "the kernel ends at"},
		"a kernel below the initrd": {func(l *KrunLaunch) { l.Firmware.KernelAddress = 0x100000 }, "reaches into the kernel"},
		"an initrd into the kernel": {func(l *KrunLaunch) { l.Firmware.Initrd = make([]byte, 0x601000) }, "reaches into the kernel"},
	} {
		l := krunLaunch(t)
		tt.change(&l)
		if got, err := l.LaunchDigest(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %x, %v, want %q", name, got, err, tt.want)
		}
	}
}

// TestKrunLibraryEntry: newer libraries store the entry beside the address, in
// either order.
func TestKrunLibraryEntry(t *testing.T) {
	for name, stored := range map[string][]uint32{
		"entry at the start": {0x1000000, 0x1000000, 0x2000},
		"entry after it":     {0x1000000, 0x1000200, 0x2000},
		"the other order":    {0x2000, 0x1000200, 0x1000000},
	} {
		s := measuretest.KrunSymbols("kernel", "initrd")
		s[3].Content = measuretest.KrunAccessor(stored...)
		if f, err := ParseKrunLibrary(measuretest.KrunLibrary(s...)); err != nil || f.KernelAddress != 0x1000000 {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func TestHostileKrunLibraries(t *testing.T) {
	symbols := func(change func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol) []byte {
		return measuretest.KrunLibrary(change(measuretest.KrunSymbols("kernel", "initrd"))...)
	}
	code := func(code []byte) []byte {
		return symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { s[3].Content = code; return s })
	}
	good := measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", "initrd")...)
	put := func(at int, b byte) []byte { c := bytes.Clone(good); c[at] = b; return c }
	table := bytes.Index(good, []byte("\x00QBOOT_BUNDLE")) - 5*24
	for name, tt := range map[string]struct {
		library []byte
		want    string
	}{
		"nothing":               {nil, "EOF"},
		"no ELF":                {[]byte(strings.Repeat("x", 100)), "bad magic"},
		"a program":             {put(16, 2), "want a shared library"},
		"another machine":       {put(18, 183), "want a shared library"},
		"cut in its sections":   {good[:len(good)-100], ""},
		"no symbols":            {measuretest.KrunLibrary(), "QBOOT_BUNDLE is missing"},
		"no initrd":             {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { return slices.Delete(s, 2, 3) }), "INITRD_BUNDLE is missing"},
		"a kernel twice":        {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { return append(s, s[1]) }), "KERNEL_BUNDLE is there twice"},
		"a short qboot":         {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { s[0].Content = s[1].Content; return s }), "want 65536"},
		"an initrd of no pages": {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { s[2].Content = s[2].Content[:100]; return s }), "want whole pages"},
		"an empty kernel":       {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { s[1].Content = []byte{0}; return s }), "want whole pages"},
		"a kernel of no bytes":  {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { s[1].Content = nil; return s }), "of 0 bytes"},
		"code for a kernel":     {symbols(func(s []measuretest.KrunSymbol) []measuretest.KrunSymbol { s[1].Kind = 2; return s }), "want STT_OBJECT"},
		"a size over the file":  {put(table+24+16+3, 0x7f), "are not all in the file"},
		"an address outside":    {put(table+24+8+7, 0x7f), "is not in the file"},
		"no address":            {code([]byte{0xc3}), "stores 0 addresses"},
		"an address of zero":    {code(measuretest.KrunAccessor(0)), "want a page's address"},
		"an address in a page":  {code(measuretest.KrunAccessor(0x1000001)), "want a page's address"},
		"an entry elsewhere":    {code(measuretest.KrunAccessor(0x1000000, 0x1002000)), "one in the kernel"},
		"three addresses":       {code(measuretest.KrunAccessor(0x1000000, 0x1000100, 0x1000200)), "stores 3 addresses"},
		"long code":             {code(make([]byte, maxKrunAccessor+1)), "at most 512"},
	} {
		if f, err := ParseKrunLibrary(tt.library); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, %v, want %q", name, f != nil, err, tt.want)
		}
	}
	// A section that says it is compressed.
	compressed := bytes.Clone(good)
	sections := binary.LittleEndian.Uint64(good[40:])
	binary.LittleEndian.PutUint64(compressed[sections+64+8:], 0x800)
	if _, err := ParseKrunLibrary(compressed); err == nil {
		t.Error("a compressed section was taken")
	}
}

// FuzzParseKrunLibrary: no library makes it panic, and what is taken can be measured or
// is refused.
func FuzzParseKrunLibrary(f *testing.F) {
	f.Add(measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", "initrd")...))
	f.Add(measuretest.KrunLibrary(measuretest.KrunSymbols("kernel", "initrd")[3:]...)) // a small one
	f.Fuzz(func(t *testing.T, library []byte) {
		fw, err := ParseKrunLibrary(library)
		if err != nil {
			return
		}
		l := KrunLaunch{Firmware: fw, CPUs: 1, MemoryMiB: 512, GuestFeatures: 1}
		if _, err := l.LaunchDigest(); err == nil && len(fw.Qboot) != qbootSize {
			t.Errorf("measured a qboot of %d bytes", len(fw.Qboot))
		}
	})
}
