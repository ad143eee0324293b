// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"cmp"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
)

const (
	// MaxPESize bounds an EFI program; a UKI holds a kernel and an initrd.
	MaxPESize = 1 << 30

	// maxPESections is the limit of Windows' loader; a UKI has under 20.
	maxPESections = 96

	dosHeaderSize  = 64
	coffHeaderSize = 24 // with the signature
	sectionSize    = 40

	machineAMD64 = 0x8664
	machineARM64 = 0xaa64
	magicPE32P   = 0x20b

	// Offsets in the optional header of PE32+.
	optHeadersSize = 60
	optChecksum    = 64
	optDirectories = 108
	optCertificate = optDirectories + 4 + 4*8
	optMinimum     = optCertificate + 8
	maxDirectories = 16
)

// PE is an EFI program: PE32+ for x86-64 or ARM64. The image is not copied: it must
// not change while the PE is used.
type PE struct {
	image       []byte
	checksum    int // where the checksum is
	certificate int // where the certificate table's entry is
	headers     int // SizeOfHeaders
	end         int // where the certificates begin, or the end of the file
	sections    []peSection
}

// peSection is one section. Its content in the file may be shorter than in memory.
type peSection struct {
	name                   string
	virtualSize, virtualAt uint32
	size, at               uint32
}

// ParsePE reads the headers of an EFI program (Microsoft PE format; UEFI 2.10, 2.1.1).
// Files that hash differently in different implementations are errors: those with
// sections that overlap, are out of order or leave gaps, and certificates that are
// not the file's end.
func ParsePE(image []byte) (*PE, error) {
	p, err := parsePE(image)
	if err != nil {
		return nil, fmt.Errorf("reading PE file: %w", err)
	}
	return p, nil
}

func parsePE(image []byte) (*PE, error) {
	if len(image) > MaxPESize {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", len(image), MaxPESize)
	}
	if len(image) < dosHeaderSize || image[0] != 'M' || image[1] != 'Z' {
		return nil, errors.New("no MZ header")
	}
	start := binary.LittleEndian.Uint32(image[0x3c:])
	if start < dosHeaderSize || uint64(start)+coffHeaderSize+optMinimum > uint64(len(image)) {
		return nil, fmt.Errorf("header at %d in a file of %d bytes", start, len(image))
	}
	coff := image[start:]
	if string(coff[:4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("signature %q, want PE", coff[:4])
	}
	if m := binary.LittleEndian.Uint16(coff[4:]); m != machineAMD64 && m != machineARM64 {
		return nil, fmt.Errorf("machine %#x, want %#x or %#x", m, machineAMD64, machineARM64)
	}
	count, optSize := int(binary.LittleEndian.Uint16(coff[6:])), int(binary.LittleEndian.Uint16(coff[20:]))
	if count == 0 || count > maxPESections {
		return nil, fmt.Errorf("%d sections, want 1 to %d", count, maxPESections)
	}
	opt := int(start) + coffHeaderSize
	table := opt + optSize
	if optSize < optMinimum || table+count*sectionSize > len(image) {
		return nil, fmt.Errorf("%d sections after an optional header of %d bytes, in a file of %d bytes", count, optSize, len(image))
	}
	p := &PE{image: image, checksum: opt + optChecksum, certificate: opt + optCertificate}
	if err := p.readOptional(image[opt:table], table+count*sectionSize); err != nil {
		return nil, err
	}
	return p, p.readSections(image[table:], count)
}

// readOptional takes the optional header; the section table ends at tableEnd.
func (p *PE) readOptional(opt []byte, tableEnd int) error {
	if magic := binary.LittleEndian.Uint16(opt); magic != magicPE32P {
		return fmt.Errorf("optional header %#x, want PE32+", magic)
	}
	headers, directories := binary.LittleEndian.Uint32(opt[optHeadersSize:]), binary.LittleEndian.Uint32(opt[optDirectories:])
	if uint64(headers) < uint64(tableEnd) || uint64(headers) > uint64(len(p.image)) {
		return fmt.Errorf("headers of %d bytes, want %d to %d", headers, tableEnd, len(p.image))
	}
	// Fewer than five, and there is no entry for certificates.
	if directories < 5 || directories > maxDirectories || int(directories)*8 > len(opt)-optDirectories-4 {
		return fmt.Errorf("%d data directories, want 5 to %d", directories, maxDirectories)
	}
	p.headers, p.end = int(headers), len(p.image)
	at, size := binary.LittleEndian.Uint32(opt[optCertificate:]), binary.LittleEndian.Uint32(opt[optCertificate+4:])
	if at == 0 && size == 0 {
		return nil
	}
	if size == 0 || uint64(at)+uint64(size) != uint64(len(p.image)) || at < headers {
		return fmt.Errorf("certificates of %d bytes at %d are not the end of a file of %d bytes", size, at, len(p.image))
	}
	p.end = int(at)
	return nil
}

func (p *PE) readSections(table []byte, count int) error {
	next := uint64(p.headers)
	for i := range count {
		e := table[i*sectionSize:]
		name, rest, _ := bytes.Cut(e[:8], []byte{0})
		if slices.ContainsFunc(rest, func(b byte) bool { return b != 0 }) {
			return fmt.Errorf("section %d: name has bytes after its end", i)
		}
		s := peSection{
			name: string(name), virtualSize: binary.LittleEndian.Uint32(e[8:]), virtualAt: binary.LittleEndian.Uint32(e[12:]),
			size: binary.LittleEndian.Uint32(e[16:]), at: binary.LittleEndian.Uint32(e[20:]),
		}
		if s.size > 0 {
			if uint64(s.at) != next {
				return fmt.Errorf("section %d, %q: content at %d, want it at %d, after what comes before", i, s.name, s.at, next)
			}
			if next += uint64(s.size); next > uint64(p.end) {
				return fmt.Errorf("section %d, %q: ends at %d of %d bytes", i, s.name, next, p.end)
			}
		}
		p.sections = append(p.sections, s)
	}
	return nil
}

// Authenticode returns the hash that firmware measures when it starts the program:
// all of the file but the checksum, the certificate table's entry and the
// certificates (Microsoft, Windows Authenticode Portable Executable Signature Format;
// TCG PC Client Platform Firmware Profile, EV_EFI_BOOT_SERVICES_APPLICATION).
func (p *PE) Authenticode(h crypto.Hash) []byte {
	d := h.New()
	p.authenticode(d)
	return d.Sum(nil)
}

// authenticode writes what is hashed. Sections follow the headers without gaps in
// file order, so that this is the rest of the file.
func (p *PE) authenticode(d hash.Hash) {
	d.Write(p.image[:p.checksum])
	d.Write(p.image[p.checksum+4 : p.certificate])
	d.Write(p.image[p.certificate+8 : p.end])
}

// section returns the content of the one section with that name, as long as it is in
// memory, nil when there is none.
func (p *PE) section(name string) ([]byte, error) {
	var found *peSection
	for i, s := range p.sections {
		if s.name != name {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("section %s is there twice", name)
		}
		found = &p.sections[i]
	}
	if found == nil {
		return nil, nil
	}
	if found.virtualSize == 0 || found.virtualSize > found.size {
		return nil, fmt.Errorf("section %s has %d bytes in memory, %d in the file", name, found.virtualSize, found.size)
	}
	for _, s := range p.sections {
		if s != *found && uint64(s.virtualAt) < uint64(found.virtualAt)+uint64(found.virtualSize) &&
			uint64(found.virtualAt) < uint64(s.virtualAt)+uint64(cmp.Or(s.virtualSize, s.size)) {
			return nil, fmt.Errorf("sections %s and %s overlap in memory", name, s.name)
		}
	}
	return p.image[found.at : found.at+found.virtualSize], nil
}
