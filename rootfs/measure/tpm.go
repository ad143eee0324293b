// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"crypto"
	"crypto/sha256"
	"fmt"
	"unicode/utf16"
)

// bootAction is what OVMF measures when it starts to boot from one of its options
// (TCG PC Client Platform Firmware Profile, EV_EFI_ACTION).
const bootAction = "Calling EFI Application from Boot Option"

// register is a PCR or RTMR: it starts as zeros and can only be extended.
type register struct {
	hash  crypto.Hash
	value []byte
}

func newRegister(h crypto.Hash) *register { return &register{hash: h, value: make([]byte, h.Size())} }

// extend adds a digest of the register's hash.
func (r *register) extend(digest []byte) {
	d := r.hash.New()
	d.Write(r.value)
	d.Write(digest)
	r.value = d.Sum(nil)
}

// measure adds the hash of data.
func (r *register) measure(data []byte) {
	d := r.hash.New()
	d.Write(data)
	r.extend(d.Sum(nil))
}

// TPMBoot is the boot of a UKI by OVMF with a TPM.
type TPMBoot struct {
	UKI *UKI

	// QEMUKernel says that the UKI is given to QEMU as -kernel: OVMF then loads it
	// before it says that it boots. Otherwise it is the first thing that boots from a disk.
	QEMUKernel bool

	// LoadOptions is a command line from outside, as -append, which the stub takes in
	// place of the UKI's own where secure boot is off. Empty is none.
	LoadOptions string
}

// PCRs are the values of one bank after the kernel has started and before any program
// extends more.
type PCRs struct {
	// PCR4 has the programs that the firmware started.
	PCR4 []byte

	// PCR9 has the command line and the initrd as Linux measures them.
	PCR9 []byte

	// PCR11 has the sections of the UKI.
	PCR11 []byte

	// PCR12 has a command line from outside; zeros without one.
	PCR12 []byte
}

// PCRs computes the bank of h, SHA-256 or SHA-384.
func (b *TPMBoot) PCRs(h crypto.Hash) (PCRs, error) {
	if h != crypto.SHA256 && h != crypto.SHA384 {
		return PCRs{}, fmt.Errorf("bank of %v, want SHA-256 or SHA-384", h)
	}
	if err := checkCommandLine(b.LoadOptions); err != nil {
		return PCRs{}, fmt.Errorf("load options: %w", err)
	}
	return PCRs{PCR4: b.pcr4(h), PCR9: b.pcr9(h), PCR11: b.pcr11(h), PCR12: b.pcr12(h)}, nil
}

func (b *TPMBoot) pcr4(h crypto.Hash) []byte {
	r := newRegister(h)
	if b.QEMUKernel {
		r.extend(b.UKI.program.Authenticode(h))
	}
	r.measure([]byte(bootAction))
	r.measure(make([]byte, 4)) // EV_SEPARATOR
	if !b.QEMUKernel {
		r.extend(b.UKI.program.Authenticode(h))
	}
	// The stub starts the kernel through the firmware.
	r.extend(b.UKI.kernel.Authenticode(h))
	return r.value
}

// pcr9 is what Linux' EFI stub measures: its load options in UTF-16 with the NUL, and
// the initrd.
func (b *TPMBoot) pcr9(h crypto.Hash) []byte {
	r := newRegister(h)
	line := string(b.UKI.CommandLine)
	if b.LoadOptions != "" {
		line = b.LoadOptions
	}
	r.measure(utf16z(line))
	r.measure(b.UKI.Initrd)
	return r.value
}

// pcr11 is what systemd-stub 252 measures: of each section first the name with its
// NUL, then the content.
func (b *TPMBoot) pcr11(h crypto.Hash) []byte {
	r := newRegister(h)
	for _, s := range []struct {
		name    string
		content []byte
	}{{".linux", b.UKI.Linux}, {".osrel", b.UKI.OSRelease}, {".cmdline", b.UKI.CommandLine}, {".initrd", b.UKI.Initrd}} {
		if s.content == nil {
			continue
		}
		r.measure([]byte(s.name + "\x00"))
		r.measure(s.content)
	}
	return r.value
}

func (b *TPMBoot) pcr12(h crypto.Hash) []byte {
	r := newRegister(h)
	if b.LoadOptions != "" {
		r.measure(utf16z(b.LoadOptions))
	}
	return r.value
}

// InitDataPCR8 is PCR 8 of the SHA-256 bank after a guest has recorded the digest of
// its initdata, and nobody anything else.
func InitDataPCR8(digest [sha256.Size]byte) []byte {
	r := newRegister(crypto.SHA256)
	r.extend(digest[:])
	return r.value
}

// utf16z is UTF-16, little-endian, with a NUL.
func utf16z(text string) []byte {
	var out []byte
	for _, u := range append(utf16.Encode([]rune(text)), 0) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}
