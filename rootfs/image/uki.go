// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// UKI is what a unified kernel image holds: an EFI program (the stub, systemd's or
// one like it) that finds the rest in sections of its own file and measures each
// (UAPI group, Unified Kernel Image specification, "UKI Components").
type UKI struct {
	Stub    []byte // a PE32+ EFI application without a signature
	Kernel  []byte // a kernel that is an EFI program itself, as Debian's vmlinuz
	Initrd  []byte
	CmdLine string // printable ASCII, without a line end
	OSRel   string // in the form of os-release
}

// maxUKI bounds all parts together, in bytes: offsets in a PE file have 32 bits, and
// firmware loads the file as a whole.
const maxUKI = 1 << 30

// Build returns the image: the stub with four more sections. The same parts give the
// same bytes.
func (u UKI) Build() ([]byte, error) {
	stub, err := parsePE(u.Stub)
	if err != nil {
		return nil, fmt.Errorf("reading the stub: %w", err)
	}
	if kernel, err := parsePE(u.Kernel); err != nil {
		return nil, fmt.Errorf("reading the kernel: %w", err)
	} else if kernel.machine != stub.machine {
		return nil, fmt.Errorf("the kernel is for machine %#x, the stub for %#x", kernel.machine, stub.machine)
	}
	if len(u.Initrd) == 0 || u.OSRel == "" {
		return nil, errors.New("an initrd and an os-release are needed")
	}
	for _, c := range []byte(u.CmdLine) {
		if c < ' ' || c > '~' {
			return nil, fmt.Errorf("command line: byte %#x: want printable ASCII", c)
		}
	}
	if total := len(u.Stub) + len(u.Kernel) + len(u.Initrd) + len(u.CmdLine) + len(u.OSRel); total > maxUKI {
		return nil, fmt.Errorf("%d bytes in all, want at most %d", total, maxUKI)
	}
	// The kernel comes last, as the stub of some versions starts it where it lies, and
	// it then takes memory behind itself.
	return stub.with([]section{
		{".osrel", []byte(u.OSRel)},
		{".cmdline", []byte(u.CmdLine)},
		{".initrd", u.Initrd},
		{".linux", u.Kernel},
	})
}

// section is one to add: a name of at most 8 bytes and its content.
type section struct {
	name    string
	content []byte
}

// Offsets from the start of the PE header, and sizes (Microsoft, PE Format, "COFF
// File Header", "Optional Header", "Section Table").
const (
	dosPEOffset = 0x3c
	dosSize     = 0x40

	coffMachine      = 4
	coffSections     = 6
	coffSymbols      = 12 // where the symbol table is, then how many symbols it has
	coffOptionalSize = 20
	coffSize         = 24

	optMagic             = coffSize + 0
	optInitializedData   = coffSize + 8
	optSectionAlignment  = coffSize + 32
	optFileAlignment     = coffSize + 36
	optImageSize         = coffSize + 56
	optHeadersSize       = coffSize + 60
	optCheckSum          = coffSize + 64
	optSubsystem         = coffSize + 68
	optDirectories       = coffSize + 108
	optSecurityDirectory = coffSize + 144
	optLeast             = 152 // bytes of the optional header up to the security directory's end

	sectionSize     = 40
	sectionsMax     = 96 // what loaders take
	magicPE32Plus   = 0x20b
	subsystemEFI    = 10
	contentReadOnly = 0x40000040 // initialised data, readable
	pageSize        = 4096
)

// peFile is a PE file's bytes and what was read from them.
type peFile struct {
	raw           []byte
	header        int // offset of the PE header
	table         int // offset of the section table
	sections      int
	machine       uint16
	fileAlignment uint32
	sectionAlign  uint32
	end           uint64 // of the highest section in memory
	content       uint64 // where the last section ends in the file
}

func parsePE(raw []byte) (peFile, error) {
	e := binary.LittleEndian
	if len(raw) > maxUKI {
		return peFile{}, fmt.Errorf("%d bytes, want at most %d", len(raw), maxUKI)
	}
	if len(raw) < dosSize || string(raw[:2]) != "MZ" {
		return peFile{}, errors.New("no EFI program: it does not start with MZ")
	}
	at := uint64(e.Uint32(raw[dosPEOffset:]))
	if at+coffSize+optLeast > uint64(len(raw)) || string(raw[at:at+4]) != "PE\x00\x00" {
		return peFile{}, fmt.Errorf("no PE header at %#x", at)
	}
	h := raw[at:]
	p := peFile{
		raw: raw, header: int(at), machine: e.Uint16(h[coffMachine:]), sections: int(e.Uint16(h[coffSections:])),
		table: int(at) + coffSize + int(e.Uint16(h[coffOptionalSize:])), fileAlignment: e.Uint32(h[optFileAlignment:]),
		sectionAlign: e.Uint32(h[optSectionAlignment:]),
	}
	switch {
	case e.Uint16(h[optMagic:]) != magicPE32Plus || e.Uint16(h[coffOptionalSize:]) < optLeast || e.Uint32(h[optDirectories:]) < 5:
		return peFile{}, errors.New("no PE32+ file with a security directory")
	case e.Uint16(h[optSubsystem:]) != subsystemEFI:
		return peFile{}, fmt.Errorf("subsystem %d, want %d: no EFI application", e.Uint16(h[optSubsystem:]), subsystemEFI)
	case p.sections == 0 || p.sections > sectionsMax || p.table+p.sections*sectionSize > len(raw):
		return peFile{}, fmt.Errorf("section table of %d sections at %#x in a file of %d bytes", p.sections, p.table, len(raw))
	case !power(p.fileAlignment) || !power(p.sectionAlign):
		return peFile{}, fmt.Errorf("alignments %d and %d, want powers of two from 1 to %d", p.fileAlignment, p.sectionAlign, 1<<16)
	}
	for i := range p.sections {
		s := raw[p.table+i*sectionSize:]
		p.end = max(p.end, uint64(e.Uint32(s[12:]))+uint64(e.Uint32(s[8:])))
		p.content = max(p.content, uint64(e.Uint32(s[20:]))+uint64(e.Uint32(s[16:])))
	}
	return p, nil
}

func power(n uint32) bool { return n > 0 && n <= 1<<16 && n&(n-1) == 0 }

// with returns the file with more sections behind all others, in the file and in
// memory. A symbol table between them, which nothing loads, would be a gap that
// firmware and whoever computes its measurements need not hash alike: it is left out.
func (p peFile) with(more []section) ([]byte, error) {
	if err := p.extensible(more); err != nil {
		return nil, err
	}
	e := binary.LittleEndian
	out := bytes.Clone(p.raw[:p.content])
	memory, data := p.end, e.Uint32(p.raw[p.header+optInitializedData:])
	for i, s := range more {
		out = append(out, make([]byte, pad(uint64(len(out)), uint64(p.fileAlignment)))...)
		memory += pad(memory, max(pageSize, uint64(p.sectionAlign)))
		size := uint64(len(s.content)) + pad(uint64(len(s.content)), uint64(p.fileAlignment))
		if memory+size > 1<<32-1<<16 {
			return nil, fmt.Errorf("section %s ends behind 4 GiB", s.name)
		}
		b := out[p.table+(p.sections+i)*sectionSize:][:sectionSize]
		copy(b, s.name)
		e.PutUint32(b[8:], uint32(len(s.content)))
		e.PutUint32(b[12:], uint32(memory))
		e.PutUint32(b[16:], uint32(size))
		e.PutUint32(b[20:], uint32(len(out)))
		e.PutUint32(b[36:], contentReadOnly)
		out = append(append(out, s.content...), make([]byte, int(size)-len(s.content))...)
		memory, data = memory+uint64(len(s.content)), data+uint32(size)
	}
	h := out[p.header:]
	e.PutUint64(h[coffSymbols:], 0)
	e.PutUint16(h[coffSections:], uint16(p.sections+len(more)))
	e.PutUint32(h[optInitializedData:], data)
	e.PutUint32(h[optImageSize:], uint32(memory+pad(memory, uint64(p.sectionAlign))))
	e.PutUint32(h[optCheckSum:], 0)
	e.PutUint32(h[optCheckSum:], checkSum(out))
	return out, nil
}

// extensible refuses a signed file, one that has such sections already and one
// without room for their headers.
func (p peFile) extensible(more []section) error {
	e := binary.LittleEndian
	h := p.raw[p.header:]
	if e.Uint64(h[optSecurityDirectory:]) != 0 {
		return errors.New("the stub is signed: its signature would not cover what is added")
	}
	room := int(e.Uint32(h[optHeadersSize:]))
	start := p.table + p.sections*sectionSize
	end := start + len(more)*sectionSize
	if p.sections+len(more) > sectionsMax || end > room || room > len(p.raw) {
		return fmt.Errorf("the stub's headers have %d bytes: %d are needed for %d more sections", room, end, len(more))
	}
	if symbols := uint64(e.Uint32(h[coffSymbols:])); p.content > uint64(len(p.raw)) || p.content < uint64(room) ||
		p.content < uint64(len(p.raw)) && symbols != p.content {
		return fmt.Errorf("the stub's sections end at %d of %d bytes: want nothing behind them but a symbol table", p.content, len(p.raw))
	}
	if len(bytes.Trim(p.raw[start:end], "\x00")) > 0 {
		return errors.New("the stub has something behind its section table")
	}
	for i := range p.sections {
		name := string(bytes.TrimRight(p.raw[p.table+i*sectionSize:][:8], "\x00"))
		for _, s := range more {
			if s.name == name {
				return fmt.Errorf("the stub has a section %s already", name)
			}
		}
	}
	return nil
}

// pad is what n lacks to a multiple of to.
func pad(n, to uint64) uint64 { return (to - n%to) % to }

// checkSum is the one of the optional header, over a file in which it is zero: the
// 16-bit words added with their carries, and the file's length.
func checkSum(b []byte) uint32 {
	size := len(b)
	var sum uint64
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(binary.LittleEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return uint32(sum) + uint32(size)
}
