// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"
)

// efiProgram makes the smallest PE32+ EFI application with the given sections, each
// of 512 bytes, and 1024 bytes of headers.
func efiProgram(machine uint16, sections ...string) []byte {
	const at, optional = 0x80, 240
	e := binary.LittleEndian
	b := make([]byte, 1024+512*len(sections))
	copy(b, "MZ")
	e.PutUint32(b[dosPEOffset:], at)
	h := b[at:]
	copy(h, "PE\x00\x00")
	e.PutUint16(h[coffMachine:], machine)
	e.PutUint16(h[coffSections:], uint16(len(sections)))
	e.PutUint16(h[coffOptionalSize:], optional)
	e.PutUint16(h[coffOptionalSize+2:], 0x206)
	e.PutUint16(h[optMagic:], magicPE32Plus)
	e.PutUint32(h[optSectionAlignment:], 512)
	e.PutUint32(h[optFileAlignment:], 512)
	e.PutUint32(h[optHeadersSize:], 1024)
	e.PutUint16(h[optSubsystem:], subsystemEFI)
	e.PutUint32(h[optDirectories:], 16)
	for i, name := range sections {
		s := h[coffSize+optional+i*sectionSize:]
		copy(s[:8], name)
		e.PutUint32(s[8:], 512)
		e.PutUint32(s[12:], uint32(0x1000+512*i))
		e.PutUint32(s[16:], 512)
		e.PutUint32(s[20:], uint32(1024+512*i))
	}
	return b
}

func ukiParts() UKI {
	return UKI{
		Stub: efiProgram(0x8664, ".text", ".sdmagic"), Kernel: efiProgram(0x8664, ".text"),
		Initrd: []byte("070701"), CmdLine: "console=ttyS0 panic=-1", OSRel: "ID=casemate\n",
	}
}

// TestUKI reads the image with the standard library.
func TestUKI(t *testing.T) {
	u := ukiParts()
	image, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := u.Build(); err != nil || !bytes.Equal(image, again) {
		t.Errorf("two builds differ (%v)", err)
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	header := f.OptionalHeader.(*pe.OptionalHeader64)
	var end uint32
	for _, s := range f.Sections {
		if s.VirtualAddress < end || s.Offset+s.Size > uint32(len(image)) || s.Size%512 != 0 {
			t.Errorf("section %s at %#x behind %#x, %d bytes at %d", s.Name, s.VirtualAddress, end, s.Size, s.Offset)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	if len(f.Sections) != 6 || header.SizeOfImage < end || header.SizeOfInitializedData != 3*512+3*512 {
		t.Errorf("%d sections to %#x, image of %#x, data of %d", len(f.Sections), end, header.SizeOfImage, header.SizeOfInitializedData)
	}
	for name, want := range map[string][]byte{".osrel": []byte(u.OSRel), ".cmdline": []byte(u.CmdLine), ".initrd": u.Initrd, ".linux": u.Kernel} {
		s := f.Section(name)
		if s == nil {
			t.Errorf("no section %s", name)
			continue
		}
		got, err := s.Data()
		if err != nil || !bytes.Equal(got[:s.VirtualSize], want) || s.VirtualAddress%pageSize != 0 {
			t.Errorf("section %s holds %d bytes, %v", name, len(got), err)
		}
	}
	if !bytes.Equal(image[1024:1024+1024], u.Stub[1024:]) {
		t.Error("the stub's own sections moved")
	}
}

// TestUKIWithoutSymbols: a stub with a symbol table gives the image of one without.
func TestUKIWithoutSymbols(t *testing.T) {
	u := ukiParts()
	want, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(u.Stub[0x80+coffSymbols:], uint32(len(u.Stub)))
	binary.LittleEndian.PutUint32(u.Stub[0x80+coffSymbols+4:], 3)
	u.Stub = append(u.Stub, "symbols"...)
	if got, err := u.Build(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the symbol table changes the image (%v)", err)
	}
}

// TestCheckSum: the sum as Microsoft's own tools count it, of a file that was made
// with a sum of its own in objcopy: see TestUKITools. Here, its rule by hand.
func TestCheckSum(t *testing.T) {
	for text, want := range map[string]uint32{"": 0, "\x01\x02\x03": 0x0201 + 3 + 3, "\xff\xff\x02\x00": 2 + 4} {
		if got := checkSum([]byte(text)); got != want {
			t.Errorf("%q: got %#x, want %#x", text, got, want)
		}
	}
}

func TestUKIRefuses(t *testing.T) {
	at := func(stub []byte, offset int, value uint32) []byte {
		b := bytes.Clone(stub)
		binary.LittleEndian.PutUint32(b[offset:], value)
		return b
	}
	const header = 0x80
	good := ukiParts()
	for name, change := range map[string]func(*UKI){
		"no stub":                 func(u *UKI) { u.Stub = nil },
		"stub without a header":   func(u *UKI) { u.Stub = at(good.Stub, dosPEOffset, 1<<31) },
		"stub that is cut off":    func(u *UKI) { u.Stub = good.Stub[:header+100] },
		"stub of 32 bits":         func(u *UKI) { u.Stub = at(good.Stub, header+optMagic, 0x10b) },
		"stub that is no program": func(u *UKI) { u.Stub = at(good.Stub, header+optSubsystem, 3) },
		"signed stub":             func(u *UKI) { u.Stub = at(good.Stub, header+optSecurityDirectory, 4096) },
		"stub with more behind":   func(u *UKI) { u.Stub = append(bytes.Clone(good.Stub), 1) },
		"stub without room":       func(u *UKI) { u.Stub = at(good.Stub, header+optHeadersSize, 512) },
		"stub with too many sections": func(u *UKI) {
			u.Stub = at(good.Stub, header+coffMachine, 0x8664|97<<16)
		},
		"stub with alignment 3":          func(u *UKI) { u.Stub = at(good.Stub, header+optFileAlignment, 3) },
		"stub with alignment 0":          func(u *UKI) { u.Stub = at(good.Stub, header+optSectionAlignment, 0) },
		"stub that has a kernel":         func(u *UKI) { u.Stub = efiProgram(0x8664, ".text", ".linux") },
		"stub that ends at 4 GiB":        func(u *UKI) { u.Stub = at(good.Stub, header+coffSize+240+12, 1<<32-513) },
		"stub with more than its table":  func(u *UKI) { u.Stub = at(good.Stub, header+coffSize+240+2*sectionSize, 1) },
		"kernel that is no EFI program":  func(u *UKI) { u.Kernel = []byte("\x7fELF" + strings.Repeat("x", 1000)) },
		"kernel for another machine":     func(u *UKI) { u.Kernel = efiProgram(0xaa64, ".text") },
		"no initrd":                      func(u *UKI) { u.Initrd = nil },
		"no os-release":                  func(u *UKI) { u.OSRel = "" },
		"command line of two lines":      func(u *UKI) { u.CmdLine = "quiet\ninit=/bin/sh" },
		"command line with a NUL inside": func(u *UKI) { u.CmdLine = "quiet\x00" },
	} {
		u := good
		change(&u)
		if _, err := u.Build(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// FuzzUKI: whatever the stub, no panic, and what is built reads as the stub with four
// more sections.
func FuzzUKI(f *testing.F) {
	f.Add(ukiParts().Stub)
	f.Add(efiProgram(0x8664))
	f.Fuzz(func(t *testing.T, stub []byte) {
		u := ukiParts()
		u.Stub = stub
		image, err := u.Build()
		if err != nil {
			return
		}
		before, err := parsePE(stub)
		if err != nil {
			t.Fatal(err)
		}
		after, err := parsePE(image)
		if err != nil || after.sections != before.sections+4 || len(image) < len(stub) {
			t.Fatalf("%d sections, %v", after.sections, err)
		}
	})
}
