// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

// ErrUnknownPEI says that it is not known where a PEI volume has the machine.
var ErrUnknownPEI = errors.New("where this PEI volume notes the machine is not known here")

// OVMFMachine is what OVMF notes of a machine q35 of QEMU in its PEI volume, as far as
// the owner says it. The rest, how many address bits its processors have and whether it can
// suspend, is tried.
type OVMFMachine struct {
	// MemoryMiB is QEMU's -m, 64 to 1 TiB.
	MemoryMiB uint64

	// CPUs is QEMU's -smp, without more that could be added later.
	CPUs int
}

// peiLayout is where a build of OVMF has its notes: EFI_HOB_PLATFORM_INFO of edk2-stable202211, and
// what PlatformPei keeps beside it.
type peiLayout struct {
	platform int // EFI_HOB_PLATFORM_INFO
	resume   int // what is reserved for resuming: address and size
	fwCfg    int // whether QEMU's fw_cfg is there, and has DMA
}

// peiLayouts are known by the SHA-256 of the volume in the file: only those with
// which a recorded boot has been computed.
func peiLayouts() map[string]peiLayout {
	return map[string]peiLayout{
		// Debian 2022.11-6+deb12u2, OVMF_CODE_4M.fd.
		"471281a7d197d12ac61a810e5150b9b5ddc47be78ef0c24af7a8192c81b3a808": {platform: 0xe0c0, resume: 0xe142, fwCfg: 0xe14a},
	}
}

const (
	maxOVMFMemory = 1 << 20 // MiB

	gib            = 1 << 30
	q35LowEnd      = 0xb0000000 // with less memory all of it is below 4 GiB
	q35LowSplit    = 0x80000000 // and with more this much
	ovmfWindow     = 32 * gib   // the least for PCI above memory
	ovmfLeastBits  = 36
	ovmfMostBits   = 47
	ovmfMaxCPUs    = 64 // the default for machines that do not tell
	resumeFixed    = 512 << 10
	resumeEachCPU  = 32 << 10
	q35HostBridge  = 0x29c0
	pciWindow32    = 0xc0000000
	pciWindow32End = 0xfc000000
	pciPorts       = 0x6000
	pciPortsSize   = 0xa000
)

// explain finds the machine with which the file's PEI volume has the digest that was
// measured. A digest that no such machine gives is ErrOtherFirmware.
func (v *FirmwareVolumes) explain(m OVMFMachine, h crypto.Hash, digest []byte) error {
	if m.MemoryMiB < 64 || m.MemoryMiB > maxOVMFMemory || m.CPUs < 1 || m.CPUs > MaxVCPUs {
		return fmt.Errorf("machine of %d MiB and %d processors, want 64 to %d and 1 to %d", m.MemoryMiB, m.CPUs, maxOVMFMemory, MaxVCPUs)
	}
	sum := sha256.Sum256(v.PEI)
	at, ok := peiLayouts()[hex.EncodeToString(sum[:])]
	if !ok {
		return fmt.Errorf("PEI volume sha256:%x: %w", sum, ErrUnknownPEI)
	}
	volume := bytes.Clone(v.PEI)
	for _, resumes := range []bool{true, false} {
		for _, w := range m.windows() {
			m.note(volume, at, w, resumes)
			d := h.New()
			d.Write(volume)
			if bytes.Equal(d.Sum(nil), digest) {
				return nil
			}
		}
	}
	return fmt.Errorf("the PEI volume is not the file's on a machine of %d MiB and %d processors: %w", m.MemoryMiB, m.CPUs, ErrOtherFirmware)
}

// low is how much memory is below 4 GiB.
func (m OVMFMachine) low() uint64 {
	if size := m.MemoryMiB << 20; size < q35LowEnd {
		return size
	}
	return q35LowSplit
}

// window is how OVMF lays out addresses above memory.
type window struct {
	unused        uint64 // the first address that nothing has
	bits          uint8
	address, size uint64 // PCI's
}

// windows are the layouts that there can be: PCI's window behind memory, in units of
// its size, and where the processors' address bits are believed, at their end and an eighth of
// them.
func (m OVMFMachine) windows() []window {
	behind := uint64(4*gib) + m.MemoryMiB<<20 - m.low()
	address := (behind + ovmfWindow - 1) / ovmfWindow * ovmfWindow
	unused := address + ovmfWindow
	least := window{unused, ovmfLeastBits, address, ovmfWindow}
	for unused > 1<<least.bits {
		least.bits++
	}
	all := []window{least}
	for bits := uint8(ovmfLeastBits); bits <= ovmfMostBits; bits++ {
		w := window{unused, bits, address, ovmfWindow}
		if size := uint64(1) << (bits - 3); ovmfWindow < size && address+size < 1<<bits {
			w.address, w.size = 1<<bits-size, size
		}
		all = append(all, w)
	}
	return all
}

// note writes into the volume what OVMF does; all of it, so that a volume can be written
// over.
func (m OVMFMachine) note(volume []byte, at peiLayout, w window, resumes bool) {
	le := binary.LittleEndian
	p := volume[at.platform:]
	le.PutUint16(p[24:], q35HostBridge)
	p[39] = 0
	le.PutUint64(p[44:], w.unused)
	p[52] = w.bits
	le.PutUint32(p[53:], q35LowSplit) // from where on memory is not cached
	if m.low() > q35LowSplit {
		le.PutUint32(p[53:], q35LowEnd)
	}
	le.PutUint64(p[70:], w.address)
	le.PutUint64(p[78:], w.size)
	le.PutUint32(p[86:], pciWindow32)
	le.PutUint32(p[90:], pciWindow32End-pciWindow32)
	le.PutUint64(p[94:], pciPorts)
	le.PutUint64(p[102:], pciPortsSize)
	le.PutUint32(p[118:], uint32(m.CPUs)) // there
	le.PutUint32(p[122:], uint32(m.CPUs)) // possible
	le.PutUint32(p[126:], ovmfMaxCPUs)
	volume[at.fwCfg], volume[at.fwCfg+1] = 1, 1
	clear(volume[at.resume : at.resume+8])
	if resumes {
		p[39] = 1
		size := uint32(resumeFixed + resumeEachCPU*m.CPUs)
		le.PutUint32(volume[at.resume:], uint32(m.low())-size)
		le.PutUint32(volume[at.resume+4:], size)
	}
}
