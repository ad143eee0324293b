// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const guidTDVFMetadata = "e47a6535-984a-4798-865e-4685a7bf8ec2"

// ErrNoTDVF says that an image was not built to start under TDX.
var ErrNoTDVF = errors.New("firmware has no TDVF metadata")

// Types and attributes of TDVF sections (Intel TDX Virtual Firmware Design Guide,
// TDVF descriptor).
const (
	tdvfBFV     = 0 // boot firmware volume
	tdvfCFV     = 1 // configuration firmware volume
	tdvfHOB     = 2 // hand-off blocks, made by the VMM
	tdvfTempMem = 3
	tdvfPermMem = 4

	tdvfExtend  = 1 // MR.EXTEND: the content is measured
	tdvfAugment = 2 // PAGE.AUG: added later, by the guest's consent, and not measured
)

// tdvfSection is memory that the VMM adds before the guest starts.
type tdvfSection struct {
	content          []byte // from the image; shorter than size, or empty, is zeros
	address, size    uint64
	kind, attributes uint32
}

// tdvfSections reads the TDVF descriptor: "TDVF", length, version, count, and count
// sections of 32 bytes, all little-endian. The order is the order of adding.
func (f *Firmware) tdvfSections() ([]tdvfSection, error) {
	if _, ok := f.entries[guidTDVFMetadata]; !ok {
		return nil, ErrNoTDVF
	}
	const header, each = 16, 32
	b, err := f.offsetEntry(guidTDVFMetadata, header)
	if err != nil {
		return nil, fmt.Errorf("finding TDVF metadata: %w", err)
	}
	if string(b[:4]) != "TDVF" {
		return nil, fmt.Errorf("reading TDVF metadata: signature %q, want TDVF", b[:4])
	}
	length, version, count := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if version != 1 {
		return nil, fmt.Errorf("reading TDVF metadata: version %d, want 1", version)
	}
	if count == 0 || count > maxSections {
		return nil, fmt.Errorf("reading TDVF metadata: %d sections, want 1 to %d", count, maxSections)
	}
	need := header + each*count
	if length != need || uint64(need) > uint64(len(b)) {
		return nil, fmt.Errorf("reading TDVF metadata: %d sections in %d bytes with %d left in the image", count, length, len(b))
	}
	var sections []tdvfSection
	var total uint64
	for i := range count {
		s, err := f.tdvfSection(b[header+each*i:][:each])
		if err != nil {
			return nil, fmt.Errorf("reading TDVF metadata: section %d: %w", i, err)
		}
		for j, o := range sections {
			if s.address < o.address+o.size && o.address < s.address+s.size {
				return nil, fmt.Errorf("reading TDVF metadata: sections %d and %d overlap", j, i)
			}
		}
		if total += s.size; total > maxDeclared {
			return nil, fmt.Errorf("reading TDVF metadata: sections cover over %d bytes", maxDeclared)
		}
		sections = append(sections, s)
	}
	return sections, nil
}

// tdvfSection reads one section of 32 bytes.
func (f *Firmware) tdvfSection(e []byte) (tdvfSection, error) {
	offset, raw := binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])
	s := tdvfSection{
		address: binary.LittleEndian.Uint64(e[8:]), size: binary.LittleEndian.Uint64(e[16:]),
		kind: binary.LittleEndian.Uint32(e[24:]), attributes: binary.LittleEndian.Uint32(e[28:]),
	}
	if s.size == 0 || s.size > maxDeclared || s.size%pageSize != 0 || s.address%pageSize != 0 || s.address > 1<<52-maxDeclared {
		return s, fmt.Errorf("%d bytes at %#x, want whole pages, at most %d bytes", s.size, s.address, maxDeclared)
	}
	if uint64(offset)+uint64(raw) > uint64(len(f.image)) || uint64(raw) > s.size {
		return s, fmt.Errorf("content of %d bytes at %d for %d bytes of memory, in an image of %d", raw, offset, s.size, len(f.image))
	}
	if s.attributes&^(tdvfExtend|tdvfAugment) != 0 {
		return s, fmt.Errorf("attributes %#x are not known", s.attributes)
	}
	volume := s.kind == tdvfBFV || s.kind == tdvfCFV
	switch {
	case s.kind > tdvfPermMem:
		return s, fmt.Errorf("type %d is not known", s.kind)
	case volume && uint64(raw) != s.size:
		return s, fmt.Errorf("volume of %d bytes for %d bytes of memory", raw, s.size)
	case !volume && raw != 0:
		return s, fmt.Errorf("type %d has content, %d bytes", s.kind, raw)
	case s.kind == tdvfHOB && s.attributes&tdvfExtend != 0:
		return s, errors.New("measures hand-off blocks, which the VMM makes")
	case s.attributes&tdvfAugment != 0 && (s.kind != tdvfPermMem || s.attributes&tdvfExtend != 0):
		return s, fmt.Errorf("type %d has attributes %#x", s.kind, s.attributes)
	}
	s.content = f.image[offset : offset+raw]
	return s, nil
}
