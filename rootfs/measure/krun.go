// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"fmt"
)

const (
	// MaxKrunCPUs is what libkrun has room for: 8 bits.
	MaxKrunCPUs = 255

	// MaxKrunMemory bounds the memory of a guest of libkrun, in MiB: 4 TiB.
	MaxKrunMemory = 4 << 20
)

// Where libkrun puts what it measures in a guest's memory.
const (
	krunQboot      = 0xffff0000
	krunInitrd     = 0xa00000
	krunBootParams = 0x7000
	krunInterrupts = 0x0 // zeros
	krunSecrets    = 0x5000
	krunCPUID      = 0x6000
	krunStack      = 0x8000 // zeros: qboot's stack and page tables
	krunStackSize  = 0x7000

	krunCommandLine     = 0x20000
	krunCommandLineSize = 0x200
	krunLowMemoryEnd    = 0x9fc00
	krunHighMemory      = 0x100000
	krunMMIO            = 0xd0000000
	krunStackPointer    = 0x8ff0

	// krunOtherRIP is where processors after the first start.
	krunOtherRIP = 0xfff3
)

// KrunLaunch is how libkrun starts a guest under SEV-SNP with libkrunfw-sev, for a
// confidential-workload image. The disk, the address of the relying party and the workload's id are not
// measured, nor is the command line, which the kernel's own replaces.
type KrunLaunch struct {
	Firmware *KrunFirmware

	// CPUs is the number of processors, 1 to MaxKrunCPUs: cpus of krun-sev.json.
	CPUs int

	// MemoryMiB is ram_mib of krun-sev.json.
	MemoryMiB uint64

	// GuestFeatures is SEV_FEATURES in each processor's first state, as for SNPLaunch.
	GuestFeatures uint64

	// FPU says that KVM writes the FPU's state into each processor's first state, as Linux
	// does since 6.11, the first with SNP for KVM. AMD's hosts of 5.14 before it did not,
	// and libkrunfw's own tool computes what they measured.
	FPU bool
}

// LaunchDigest returns the MEASUREMENT field of the guest's reports, 48 bytes.
func (l *KrunLaunch) LaunchDigest() ([sha512.Size384]byte, error) {
	var d launchDigest
	if err := l.check(); err != nil {
		return d.value, err
	}
	d.pages(krunQboot, l.Firmware.Qboot)
	d.pages(l.Firmware.KernelAddress, l.Firmware.Kernel)
	d.pages(krunInitrd, l.Firmware.Initrd)
	d.page(pageNormal, krunBootParams, l.bootParams())
	d.special(pageZero, krunInterrupts)
	d.special(pageSecrets, krunSecrets)
	d.special(pageCPUID, krunCPUID)
	for offset := uint64(0); offset < krunStackSize; offset += pageSize {
		d.special(pageZero, krunStack+offset)
	}
	d.page(pageVMSA, vmsaAddress, krunVMSA(true, l.FPU, l.GuestFeatures))
	other := krunVMSA(false, l.FPU, l.GuestFeatures)
	for range l.CPUs - 1 {
		d.page(pageVMSA, vmsaAddress, other)
	}
	return d.value, nil
}

func (l *KrunLaunch) check() error {
	f := l.Firmware
	kernelEnd := f.KernelAddress + uint64(len(f.Kernel))
	switch {
	case l.CPUs < 1 || l.CPUs > MaxKrunCPUs:
		return fmt.Errorf("%d processors, want 1 to %d", l.CPUs, MaxKrunCPUs)
	case l.GuestFeatures&snpActive == 0:
		return fmt.Errorf("guest features %#x lack bit 0, which makes an SNP guest", l.GuestFeatures)
	case l.MemoryMiB > MaxKrunMemory:
		return fmt.Errorf("%d MiB of memory, at most %d allowed", l.MemoryMiB, MaxKrunMemory)
	case l.MemoryMiB == krunMMIO>>20:
		// libkrun and libkrunfw's own tool draw different memory maps here.
		return fmt.Errorf("%d MiB of memory end where devices begin, which is measured in two ways", l.MemoryMiB)
	case min(l.MemoryMiB<<20, krunMMIO) < kernelEnd:
		return fmt.Errorf("%d MiB of memory, the kernel ends at %#x", l.MemoryMiB, kernelEnd)
	case f.KernelAddress < krunInitrd+uint64(len(f.Initrd)):
		return fmt.Errorf("the initrd, %d bytes at %#x, reaches into the kernel at %#x", len(f.Initrd), krunInitrd, f.KernelAddress)
	}
	return nil
}

// bootParams is the page of Linux' x86 boot protocol (the "zero page"). libkrun hands
// the number of processors to qboot in syssize.
func (l *KrunLaunch) bootParams() []byte {
	page := make([]byte, pageSize)
	le := binary.LittleEndian
	le.PutUint32(page[0x1f4:], uint32(l.CPUs)) // syssize
	le.PutUint16(page[0x1fe:], 0xaa55)         // boot_flag
	copy(page[0x202:], "HdrS")
	page[0x210] = 0xff                                         // type_of_loader
	le.PutUint32(page[0x218:], krunInitrd)                     // ramdisk_image
	le.PutUint32(page[0x21c:], uint32(len(l.Firmware.Initrd))) // ramdisk_size
	le.PutUint32(page[0x228:], krunCommandLine)                // cmd_line_ptr
	le.PutUint32(page[0x230:], 0x1000000)                      // kernel_alignment
	le.PutUint32(page[0x238:], krunCommandLineSize)            // cmdline_size
	memory := [][2]uint64{{0, krunLowMemoryEnd}}
	// libkrun counts the last region to one byte after its end.
	if size := l.MemoryMiB << 20; size < krunMMIO {
		memory = append(memory, [2]uint64{krunHighMemory, size - krunHighMemory + 1})
	} else {
		memory = append(memory, [2]uint64{krunHighMemory, krunMMIO - krunHighMemory}, [2]uint64{1 << 32, size - krunMMIO + 1})
	}
	page[0x1e8] = byte(len(memory)) // e820_entries
	for i, m := range memory {
		entry := page[0x2d0+20*i:]
		le.PutUint64(entry, m[0])
		le.PutUint64(entry[8:], m[1])
		le.PutUint32(entry[16:], 1) // usable
	}
	return page
}
