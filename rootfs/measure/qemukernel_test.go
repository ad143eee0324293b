// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/measure/measuretest"
)

func exampleKernelBoot() QEMUKernelBoot {
	return QEMUKernelBoot{Kernel: measuretest.Kernel("kernel"), Initrd: bytes.Repeat([]byte("i"), 5000), CommandLine: "quiet", MemoryMiB: 512}
}

func TestQEMUKernelPCRs(t *testing.T) {
	b := exampleKernelBoot()
	// Only the bytes of the setup header that QEMU writes differ from the file.
	want := bytes.Clone(b.Kernel)
	copy(want[0x210:], "\xb0\x81")
	copy(want[0x218:], "\x00\x60\xfd\x1f\x88\x13\x00\x00") // 0x20000000 - 0x28000 - 1 - 5000, on a page
	copy(want[0x224:], "\x00\xfe\x00\x00\x00\x00\x02\x00")
	got, err := b.patch()
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("header % x, %v, want % x", got[0x210:0x22c], err, want[0x210:0x22c])
	}
	program, err := ParsePE(want)
	if err != nil {
		t.Fatal(err)
	}
	pcrs, err := b.PCRs(crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	line := "quiet initrd=initrd\x00"
	pcr4 := extended(program.Authenticode(crypto.SHA256), sum("Calling EFI Application from Boot Option"), sum("\x00\x00\x00\x00"))
	pcr9 := extended(sum(strings.Join(strings.Split(line, ""), "\x00")+"\x00"), sum(string(b.Initrd)))
	if hex.EncodeToString(pcrs.PCR4) != pcr4 || hex.EncodeToString(pcrs.PCR9) != pcr9 {
		t.Errorf("got %x and %x, want %s and %s", pcrs.PCR4, pcrs.PCR9, pcr4, pcr9)
	}
	if zero := extended(); hex.EncodeToString(pcrs.PCR11) != zero || hex.EncodeToString(pcrs.PCR12) != zero {
		t.Errorf("PCR 11 %x, PCR 12 %x", pcrs.PCR11, pcrs.PCR12)
	}
	rtmrs, err := b.RTMRs()
	if err != nil || len(rtmrs.RTMR1) != 48 || len(rtmrs.RTMR2) != 48 {
		t.Errorf("RTMRs %+v, %v", rtmrs, err)
	}
}

// Where the initrd would be follows the end of low memory.
func TestQEMUKernelMemory(t *testing.T) {
	for memory, want := range map[uint64]uint32{
		512: 0x1ffd6000, 2815: 0xafed6000, 2816: 0x7ffd6000, 1 << 20: 0x7ffd6000,
	} {
		b := exampleKernelBoot()
		b.MemoryMiB = memory
		got, err := b.patch()
		if err != nil {
			t.Fatal(err)
		}
		if at := binary.LittleEndian.Uint32(got[0x218:]); at != want {
			t.Errorf("%d MiB: initrd at %#x, want %#x", memory, at, want)
		}
	}
}

func TestQEMUKernelRefuses(t *testing.T) {
	put := func(at int, v byte) func(*QEMUKernelBoot) {
		return func(b *QEMUKernelBoot) { b.Kernel[at] = v }
	}
	for name, tt := range map[string]struct {
		change func(*QEMUKernelBoot)
		want   string
	}{
		"no kernel":              {func(b *QEMUKernelBoot) { b.Kernel = nil }, "no MZ"},
		"program without header": {func(b *QEMUKernelBoot) { b.Kernel = examplePE() }, "no Linux setup header"},
		"old protocol":           {put(0x207, 1), "boot protocol 0x10f"},
		"loaded low":             {put(0x211, 0), "not one for x86-64"},
		"ramdisk low":            {put(0x236, 1), "not one for x86-64"},
		"no initrd":              {func(b *QEMUKernelBoot) { b.Initrd = nil }, "without command line or initrd"},
		"no command line":        {func(b *QEMUKernelBoot) { b.CommandLine = "" }, "without command line or initrd"},
		"line end":               {func(b *QEMUKernelBoot) { b.CommandLine = "a\n" }, "byte 0x0a"},
		"no memory":              {func(b *QEMUKernelBoot) { b.MemoryMiB = 0 }, "in 0 MiB"},
		"memory wraps around":    {func(b *QEMUKernelBoot) { b.MemoryMiB = 1 << 44 }, "MiB of memory"},
		"initrd over memory":     {func(b *QEMUKernelBoot) { b.Initrd, b.MemoryMiB = make([]byte, 1<<20), 1 }, "in 1 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			b := exampleKernelBoot()
			tt.change(&b)
			if got, err := b.PCRs(crypto.SHA256); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want %q", got, err, tt.want)
			}
			if _, err := b.RTMRs(); err == nil {
				t.Error("RTMRs without an error")
			}
		})
	}
	b := exampleKernelBoot()
	if _, err := b.PCRs(crypto.SHA1); err == nil {
		t.Error("SHA-1 is taken")
	}
}
