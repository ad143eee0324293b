// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// MaxVCPUs bounds the processors of a guest; each adds a page to the digest.
	MaxVCPUs = 1024

	// snpActive is the bit of SEV_FEATURES that makes a guest an SNP guest.
	snpActive = 1

	// vmsaAddress is the address under which the pages of first states are measured.
	vmsaAddress = 0xfffffffff000

	pageInfoSize = 0x70
)

// Types of pages in the launch digest, AMD 56860, SNP_LAUNCH_UPDATE.
const (
	pageNormal  = 1
	pageVMSA    = 2
	pageZero    = 3
	pageSecrets = 5
	pageCPUID   = 6
)

// SNPLaunch is how QEMU starts a guest under SEV-SNP.
type SNPLaunch struct {
	Firmware *Firmware

	// Kernel is what -kernel, -initrd and -append name, with kernel-hashes=on. Nil is a
	// boot from disk.
	Kernel *Kernel

	// VCPUs is the number of processors, 1 to MaxVCPUs.
	VCPUs int

	// CPU is the type of all of them.
	CPU CPUSignature

	// GuestFeatures is SEV_FEATURES in each processor's first state; bit 0 is set in
	// every SNP guest. Some hosts set bit 5, debug swap, by themselves.
	GuestFeatures uint64
}

// LaunchDigest returns the MEASUREMENT field of the guest's reports, 48 bytes.
func (l *SNPLaunch) LaunchDigest() ([sha512.Size384]byte, error) {
	var d launchDigest
	if l.VCPUs < 1 || l.VCPUs > MaxVCPUs {
		return d.value, fmt.Errorf("%d processors, want 1 to %d", l.VCPUs, MaxVCPUs)
	}
	if l.CPU == 0 {
		return d.value, errors.New("CPU signature is missing")
	}
	if l.GuestFeatures&snpActive == 0 {
		return d.value, fmt.Errorf("guest features %#x lack bit 0, which makes an SNP guest", l.GuestFeatures)
	}
	if len(l.Firmware.image)%pageSize != 0 {
		return d.value, fmt.Errorf("firmware is %d bytes, not whole pages", len(l.Firmware.image))
	}
	areas, err := l.Firmware.snpAreas()
	if err != nil {
		return d.value, err
	}
	d.pages(l.Firmware.base(), l.Firmware.image)
	if err := l.measureAreas(&d, areas); err != nil {
		return launchDigest{}.value, err
	}
	if err := l.measureProcessors(&d); err != nil {
		return launchDigest{}.value, err
	}
	return d.value, nil
}

func (l *SNPLaunch) measureAreas(d *launchDigest, areas []area) error {
	var hashesAt uint32
	if l.Kernel != nil {
		var err error
		if hashesAt, err = l.Firmware.hashArea(); err != nil {
			return err
		}
		if hashesAt%pageSize+hashTablePadded > pageSize {
			return fmt.Errorf("kernel-hashes area at %#x crosses a page", hashesAt)
		}
	}
	measured := false
	for _, a := range areas {
		switch {
		case a.kind == areaSecrets:
			d.special(pageSecrets, uint64(a.address))
		case a.kind == areaCPUID:
			d.special(pageCPUID, uint64(a.address))
		case a.kind == areaKernelHashes && l.Kernel != nil:
			if measured || hashesAt&^(pageSize-1) != a.address {
				return fmt.Errorf("kernel-hashes page at %#x, the table at %#x", a.address, hashesAt)
			}
			measured = true
			d.page(pageNormal, uint64(a.address), l.Kernel.hashPage(hashesAt%pageSize))
		default:
			for offset := uint64(0); offset < uint64(a.size); offset += pageSize {
				d.special(pageZero, uint64(a.address)+offset)
			}
		}
	}
	if l.Kernel != nil && !measured {
		return ErrNoKernelHashes
	}
	return nil
}

func (l *SNPLaunch) measureProcessors(d *launchDigest) error {
	d.page(pageVMSA, vmsaAddress, vmsa(bootBase, bootRIP, l.CPU, l.GuestFeatures))
	if l.VCPUs == 1 {
		return nil
	}
	start, err := l.Firmware.resetAddress()
	if err != nil {
		return err
	}
	page := vmsa(start&0xffff0000, uint16(start), l.CPU, l.GuestFeatures)
	for range l.VCPUs - 1 {
		d.page(pageVMSA, vmsaAddress, page)
	}
	return nil
}

// launchDigest is the running value, which starts as zeros.
type launchDigest struct {
	value [sha512.Size384]byte
}

// page adds a page with content.
func (d *launchDigest) page(kind byte, address uint64, content []byte) {
	d.update(kind, address, sha512.Sum384(content))
}

// pages adds content that is whole pages.
func (d *launchDigest) pages(address uint64, content []byte) {
	for offset := 0; offset < len(content); offset += pageSize {
		d.page(pageNormal, address+uint64(offset), content[offset:offset+pageSize])
	}
}

// special adds a page whose content the firmware of the processor makes.
func (d *launchDigest) special(kind byte, address uint64) {
	d.update(kind, address, [sha512.Size384]byte{})
}

// update hashes PAGE_INFO, AMD 56860: not migrated (IMI), and no permissions
// for VMPL 1 to 3.
func (d *launchDigest) update(kind byte, address uint64, content [sha512.Size384]byte) {
	info := make([]byte, 0, pageInfoSize)
	info = append(info, d.value[:]...)
	info = append(info, content[:]...)
	info = binary.LittleEndian.AppendUint16(info, pageInfoSize)
	info = append(info, kind, 0, 0, 0, 0, 0)
	info = binary.LittleEndian.AppendUint64(info, address)
	d.value = sha512.Sum384(info)
}
