// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
)

// Offsets in the setup header of a Linux kernel (Documentation/arch/x86/boot.rst).
const (
	setupMagic      = 0x202 // "HdrS"
	setupProtocol   = 0x206
	setupLoader     = 0x210
	setupFlags      = 0x211
	setupRamdisk    = 0x218
	setupRamdiskLen = 0x21c
	setupHeapEnd    = 0x224
	setupCmdline    = 0x228
	setupXFlags     = 0x236
	setupHeaderEnd  = 0x238
)

const (
	// firstProtocol is the first whose kernels say whether their ramdisk may lie high.
	firstProtocol = 0x20c

	loadedHigh   = 1 << 0 // of setupFlags
	heapUsable   = 1 << 7 // of setupFlags
	ramdiskAbove = 1 << 1 // of setupXFlags

	// What QEMU writes.
	qemuLoader      = 0xb0
	qemuRealMode    = 0x10000
	qemuCommandLine = 0x20000

	// acpiReserve is what QEMU keeps free for ACPI tables below the end of low memory.
	acpiReserve = 0x28000

	// Low memory of q35 ends there with less memory than q35Split, at q35Low with more.
	q35Split = 0xb0000000
	q35Low   = 0x80000000
)

// QEMUKernelBoot is the boot of a kernel that is given to QEMU 7.2 as -kernel, on
// machine q35 under OVMF. QEMU fills in the kernel's setup header, which changes what
// firmware measures; it does not do so under SEV.
type QEMUKernelBoot struct {
	// Kernel and Initrd are the files, both needed.
	Kernel, Initrd []byte

	// CommandLine is -append, not empty.
	CommandLine string

	// MemoryMiB is the guest's memory, which decides where the initrd would go.
	MemoryMiB uint64
}

// PCRs computes the bank of h, SHA-256 or SHA-384, as TPMBoot does.
func (b *QEMUKernelBoot) PCRs(h crypto.Hash) (PCRs, error) {
	if h != crypto.SHA256 && h != crypto.SHA384 {
		return PCRs{}, fmt.Errorf("bank of %v, want SHA-256 or SHA-384", h)
	}
	kernel, err := b.program()
	if err != nil {
		return PCRs{}, err
	}
	pcr4, pcr9 := newRegister(h), newRegister(h)
	pcr4.extend(kernel.Authenticode(h))
	pcr4.measure([]byte(bootAction))
	pcr4.measure(make([]byte, 4)) // EV_SEPARATOR
	// OVMF names the initrd that it serves to the kernel's EFI stub.
	pcr9.measure(utf16z(b.CommandLine + " initrd=initrd"))
	pcr9.measure(b.Initrd)
	return PCRs{PCR4: pcr4.value, PCR9: pcr9.value, PCR11: newRegister(h).value, PCR12: newRegister(h).value}, nil
}

// RTMRs computes RTMR 1 and 2 of the same boot under TDX, as TDXBoot does.
func (b *QEMUKernelBoot) RTMRs() (RTMRs, error) {
	pcrs, err := b.PCRs(crypto.SHA384)
	if err != nil {
		return RTMRs{}, err
	}
	return rtmrs(pcrs), nil
}

// program is the kernel as firmware gets it.
func (b *QEMUKernelBoot) program() (*PE, error) {
	if b.CommandLine == "" || len(b.Initrd) == 0 {
		return nil, errors.New("kernel without command line or initrd")
	}
	if err := checkCommandLine(b.CommandLine); err != nil {
		return nil, err
	}
	if _, err := ParsePE(b.Kernel); err != nil {
		return nil, fmt.Errorf("reading kernel: %w", err)
	}
	patched, err := b.patch()
	if err != nil {
		return nil, fmt.Errorf("reading kernel: %w", err)
	}
	return ParsePE(patched)
}

// patch returns the kernel with the setup header filled in.
func (b *QEMUKernelBoot) patch() ([]byte, error) {
	if len(b.Kernel) < setupHeaderEnd || string(b.Kernel[setupMagic:setupMagic+4]) != "HdrS" {
		return nil, errors.New("no Linux setup header")
	}
	if v := binary.LittleEndian.Uint16(b.Kernel[setupProtocol:]); v < firstProtocol {
		return nil, fmt.Errorf("boot protocol %#x, want %#x or later", v, firstProtocol)
	}
	if b.Kernel[setupFlags]&loadedHigh == 0 || binary.LittleEndian.Uint16(b.Kernel[setupXFlags:])&ramdiskAbove == 0 {
		return nil, errors.New("kernel is not one for x86-64 that takes its ramdisk anywhere below 4 GiB")
	}
	if b.MemoryMiB > 1<<30 {
		return nil, fmt.Errorf("%d MiB of memory", b.MemoryMiB)
	}
	low := b.MemoryMiB << 20
	if low >= q35Split {
		low = q35Low
	}
	need := uint64(len(b.Initrd)) + acpiReserve + 1
	if low < need {
		return nil, fmt.Errorf("initrd of %d bytes in %d MiB of memory", len(b.Initrd), b.MemoryMiB)
	}
	out := bytes.Clone(b.Kernel)
	out[setupLoader] = qemuLoader
	out[setupFlags] |= heapUsable
	binary.LittleEndian.PutUint16(out[setupHeapEnd:], qemuCommandLine-qemuRealMode-0x200)
	binary.LittleEndian.PutUint32(out[setupCmdline:], qemuCommandLine)
	binary.LittleEndian.PutUint32(out[setupRamdisk:], uint32((low-need)&^(pageSize-1)))
	binary.LittleEndian.PutUint32(out[setupRamdiskLen:], uint32(len(b.Initrd)))
	return out, nil
}
