// SPDX-License-Identifier: Apache-2.0

package measure

import "encoding/binary"

// bootRIP and bootBase are where the first processor starts: 16 bytes below 4 GiB.
const (
	bootRIP  = 0xfff0
	bootBase = 0xffff0000
)

// vmsa is the page with the first state of one processor as QEMU and KVM set it (AMD
// APM volume 2, appendix B): real mode after a reset, started at base and rip.
func vmsa(base uint32, rip uint16, cpu CPUSignature, features uint64) []byte {
	page := make([]byte, pageSize)
	segment := func(offset int, selector, attributes uint16, base uint64) {
		putSegment(page, offset, selector, attributes, base)
	}
	segment(0x00, 0, 0x93, 0)                            // ES
	segment(0x10, 0xf000, 0x9b, uint64(base))            // CS
	for _, data := range []int{0x20, 0x30, 0x40, 0x50} { // SS, DS, FS, GS
		segment(data, 0, 0x93, 0)
	}
	segment(0x60, 0, 0, 0)    // GDTR
	segment(0x70, 0, 0x82, 0) // LDTR
	segment(0x80, 0, 0, 0)    // IDTR
	segment(0x90, 0, 0x8b, 0) // TR
	putRegisters(page, []stateRegister{
		{0xd0, 0x1000},           // EFER: SVME
		{0x148, 0x40},            // CR4: MCE
		{0x158, 0x10},            // CR0: ET
		{0x160, 0x400},           // DR7
		{0x168, 0xffff0ff0},      // DR6
		{0x170, 2},               // RFLAGS
		{0x178, uint64(rip)},     // RIP
		{0x268, 0x7040600070406}, // guest PAT
		{0x310, uint64(cpu)},     // RDX
		{0x3b0, features},        // SEV_FEATURES
		{0x3e8, 1},               // XCR0: x87
	})
	putFPU(page)
	return page
}

// krunVMSA is that page as libkrun and KVM set it: the first processor comes with a stack
// and the address of the boot parameters in RSI. KVM writes the FPU's state, or does not.
func krunVMSA(first, fpu bool, features uint64) []byte {
	page := make([]byte, pageSize)
	putSegment(page, 0x10, 0xf000, 0x9a, bootBase) // CS
	putSegment(page, 0x20, 0, 0x92, 0)             // SS
	for _, data := range []int{0x00, 0x30, 0x40, 0x50} {
		putSegment(page, data, 0, 0x93, 0) // ES, DS, FS, GS
	}
	putSegment(page, 0x60, 0, 0, 0)    // GDTR
	putSegment(page, 0x70, 0, 0x82, 0) // LDTR
	putSegment(page, 0x80, 0, 0, 0)    // IDTR
	putSegment(page, 0x90, 0, 0x83, 0) // TR
	putRegisters(page, []stateRegister{
		{0xd0, 0x1000},           // EFER: SVME
		{0x148, 0x40},            // CR4: MCE
		{0x158, 0x10},            // CR0: ET
		{0x160, 0x400},           // DR7
		{0x168, 0xffff0ff0},      // DR6
		{0x170, 2},               // RFLAGS
		{0x178, krunOtherRIP},    // RIP
		{0x268, 0x7040600070406}, // guest PAT
		{0x3b0, features},        // SEV_FEATURES
		{0x3e8, 1},               // XCR0: x87
	})
	if fpu {
		putFPU(page)
	}
	if first {
		putRegisters(page, []stateRegister{
			{0x178, bootRIP},          // RIP
			{0x1d8, krunStackPointer}, // RSP
			{0x328, krunStackPointer}, // RBP
			{0x330, krunBootParams},   // RSI
		})
	}
	return page
}

// stateRegister is a register of 64 bits in the page.
type stateRegister struct {
	offset int
	value  uint64
}

func putRegisters(page []byte, registers []stateRegister) {
	for _, r := range registers {
		binary.LittleEndian.PutUint64(page[r.offset:], r.value)
	}
}

// putFPU writes the FPU's state after a reset.
func putFPU(page []byte) {
	binary.LittleEndian.PutUint32(page[0x408:], 0x1f80) // MXCSR
	binary.LittleEndian.PutUint16(page[0x410:], 0x37f)  // x87 control word
}

// putSegment writes a segment with the limit of a reset, 64 KiB.
func putSegment(page []byte, offset int, selector, attributes uint16, base uint64) {
	binary.LittleEndian.PutUint16(page[offset:], selector)
	binary.LittleEndian.PutUint16(page[offset+2:], attributes)
	binary.LittleEndian.PutUint32(page[offset+4:], 0xffff)
	binary.LittleEndian.PutUint64(page[offset+8:], base)
}
