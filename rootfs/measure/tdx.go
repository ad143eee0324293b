// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"hash"
)

const (
	// extendChunk is what one TDH.MR.EXTEND measures.
	extendChunk = 256

	// mrBlock is the size of what TDX hashes for each call, besides content.
	mrBlock = 128
)

// TDXPageOrder is the order in which a VMM adds and measures pages. MRTD depends on
// it; nothing in a quote tells it.
type TDXPageOrder int

const (
	// ExtendEachPage measures a page right after adding it, as Linux' KVM_TDX_INIT_MEM_REGION.
	ExtendEachPage TDXPageOrder = iota + 1

	// ExtendEachSection adds all pages of a section before measuring them.
	ExtendEachSection
)

// MRTD computes the build-time measurement of a TD that is started with f, 48 bytes
// (Intel TDX Module Base Architecture Specification, TDH.MEM.PAGE.ADD and
// TDH.MR.EXTEND).
func (f *Firmware) MRTD(order TDXPageOrder) ([sha512.Size384]byte, error) {
	var mrtd [sha512.Size384]byte
	if order != ExtendEachPage && order != ExtendEachSection {
		return mrtd, errors.New("order of pages is missing")
	}
	sections, err := f.tdvfSections()
	if err != nil {
		return mrtd, err
	}
	measured := false
	d := mrtdHash{sha512.New384()}
	for _, s := range sections {
		if s.attributes&tdvfAugment != 0 {
			continue
		}
		extend := s.attributes&tdvfExtend != 0
		measured = measured || extend && s.kind == tdvfBFV
		for offset := uint64(0); offset < s.size; offset += pageSize {
			d.block("MEM.PAGE.ADD", s.address+offset)
			if extend && order == ExtendEachPage {
				d.extendPage(s, offset)
			}
		}
		for offset := uint64(0); extend && order == ExtendEachSection && offset < s.size; offset += pageSize {
			d.extendPage(s, offset)
		}
	}
	if !measured {
		return mrtd, errors.New("firmware does not have its own code measured: any code would have this MRTD")
	}
	copy(mrtd[:], d.Sum(nil))
	return mrtd, nil
}

type mrtdHash struct{ hash.Hash }

// block is the operation's name and the guest-physical address at 16.
func (d mrtdHash) block(operation string, address uint64) {
	var b [mrBlock]byte
	copy(b[:], operation)
	binary.LittleEndian.PutUint64(b[16:], address)
	d.Write(b[:])
}

// extendPage measures one page of a section.
func (d mrtdHash) extendPage(s tdvfSection, offset uint64) {
	var page [pageSize]byte
	if offset < uint64(len(s.content)) {
		copy(page[:], s.content[offset:])
	}
	for at := 0; at < pageSize; at += extendChunk {
		d.block("MR.EXTEND", s.address+offset+uint64(at))
		d.Write(page[at : at+extendChunk])
	}
}

// TDXBoot is the boot of a UKI that is given to QEMU as -kernel, by OVMF under TDX
// without a TPM. LoadOptions is as in TPMBoot.
type TDXBoot struct {
	UKI         *UKI
	LoadOptions string
}

// RTMRs are the registers that a boot path determines; each has 48 bytes. RTMR 0
// depends on the VMM, memory size and ACPI tables, RTMR 3 is for programs.
type RTMRs struct {
	// RTMR1 has the programs that the firmware started and its actions.
	RTMR1 []byte

	// RTMR2 has the command line and the initrd as Linux measures them.
	RTMR2 []byte
}

// RTMRs computes them with the same events as the PCRs: what would go into PCR 2 to 6
// goes into RTMR 1, PCR 8 to 15 into RTMR 2 (UEFI 2.10, 38.4.1), and RTMR 1 gets one
// separator for all of its PCRs. systemd-stub 252 measures into a TPM only.
func (b *TDXBoot) RTMRs() (RTMRs, error) {
	boot := TPMBoot{UKI: b.UKI, QEMUKernel: true, LoadOptions: b.LoadOptions}
	pcrs, err := boot.PCRs(crypto.SHA384)
	if err != nil {
		return RTMRs{}, err
	}
	return rtmrs(pcrs), nil
}

// rtmrs carries over what a TPM would get in its SHA-384 bank.
func rtmrs(pcrs PCRs) RTMRs {
	r := register{hash: crypto.SHA384, value: pcrs.PCR4}
	r.measure([]byte("Exit Boot Services Invocation"))
	r.measure([]byte("Exit Boot Services Returned with Success"))
	return RTMRs{RTMR1: r.value, RTMR2: pcrs.PCR9}
}
