// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	// MaxKrunLibrarySize bounds libkrunfw-sev, which is 20 to 40 MB.
	MaxKrunLibrarySize = 256 << 20

	// qbootSize is what libkrun maps below 4 GiB: the reset vector is its end.
	qbootSize = 64 << 10

	// maxKrunAccessor bounds the code of a function that returns an address, a few
	// stores and a return.
	maxKrunAccessor = 512
)

// Names of libkrunfw's dynamic symbols: three arrays with a NUL after their content,
// and the function that says where the kernel goes.
const (
	symbolQboot     = "QBOOT_BUNDLE"
	symbolKernel    = "KERNEL_BUNDLE"
	symbolInitrd    = "INITRD_BUNDLE"
	symbolGetKernel = "krunfw_get_kernel"
)

// KrunFirmware is what libkrunfw-sev has for a guest of SEV-SNP: firmware, kernel and
// initrd, each of whole pages.
type KrunFirmware struct {
	// Qboot, Kernel and Initrd are parts of the library, not copies.
	Qboot, Kernel, Initrd []byte

	// KernelAddress is where the kernel is put in the guest's memory.
	KernelAddress uint64
}

// ParseKrunLibrary finds the parts in libkrunfw-sev, an ELF shared library for x86-64 (libkrunfw
// 4 and 5). Nothing of it is run: the kernel's address is taken from the instructions of
// krunfw_get_kernel that store it, and a function that stores none is an error. So are
// libraries whose parts are not whole pages, as those of libkrunfw 3.
func ParseKrunLibrary(library []byte) (*KrunFirmware, error) {
	f, err := parseKrunLibrary(library)
	if err != nil {
		return nil, fmt.Errorf("reading libkrunfw: %w", err)
	}
	return f, nil
}

func parseKrunLibrary(library []byte) (*KrunFirmware, error) {
	if len(library) > MaxKrunLibrarySize {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", len(library), MaxKrunLibrarySize)
	}
	file, err := elf.NewFile(bytes.NewReader(library))
	if err != nil {
		return nil, err
	}
	if file.Type != elf.ET_DYN || file.Machine != elf.EM_X86_64 || file.Class != elf.ELFCLASS64 {
		return nil, fmt.Errorf("%v for %v, want a shared library for x86-64", file.Type, file.Machine)
	}
	// What is compressed may be any size when it is not.
	if slices.ContainsFunc(file.Sections, func(s *elf.Section) bool { return s.Flags&elf.SHF_COMPRESSED != 0 }) {
		return nil, errors.New("a section is compressed")
	}
	symbols, err := file.DynamicSymbols()
	if err != nil {
		return nil, err
	}
	find := func(name string, kind elf.SymType) ([]byte, error) {
		return symbolContent(library, file, symbols, name, kind)
	}
	f := &KrunFirmware{}
	for _, part := range []struct {
		name string
		to   *[]byte
	}{{symbolQboot, &f.Qboot}, {symbolKernel, &f.Kernel}, {symbolInitrd, &f.Initrd}} {
		content, err := find(part.name, elf.STT_OBJECT)
		if err != nil {
			return nil, err
		}
		// The last byte ends a C string and is not part of the content.
		*part.to = content[:len(content)-1]
		if len(*part.to) == 0 || len(*part.to)%pageSize != 0 {
			return nil, fmt.Errorf("%s has %d bytes, want whole pages", part.name, len(*part.to))
		}
	}
	if len(f.Qboot) != qbootSize {
		return nil, fmt.Errorf("%s has %d bytes, want %d", symbolQboot, len(f.Qboot), qbootSize)
	}
	code, err := find(symbolGetKernel, elf.STT_FUNC)
	if err != nil {
		return nil, err
	}
	f.KernelAddress, err = kernelAddress(code, uint64(len(f.Kernel)))
	return f, err
}

// symbolContent returns the bytes in the file of the one symbol of that name.
func symbolContent(library []byte, file *elf.File, symbols []elf.Symbol, name string, kind elf.SymType) ([]byte, error) {
	var found *elf.Symbol
	for i, s := range symbols {
		if s.Name != name || s.Section == elf.SHN_UNDEF {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("symbol %s is there twice", name)
		}
		found = &symbols[i]
	}
	if found == nil {
		return nil, fmt.Errorf("symbol %s is missing: is this libkrunfw-sev?", name)
	}
	if elf.ST_TYPE(found.Info) != kind || found.Size == 0 {
		return nil, fmt.Errorf("symbol %s is %v of %d bytes, want %v", name, elf.ST_TYPE(found.Info), found.Size, kind)
	}
	for _, p := range file.Progs {
		if p.Type != elf.PT_LOAD || found.Value < p.Vaddr || found.Value-p.Vaddr >= p.Filesz {
			continue
		}
		within := found.Value - p.Vaddr
		if found.Size > p.Filesz-within || p.Off > uint64(len(library)) || p.Filesz > uint64(len(library))-p.Off {
			return nil, fmt.Errorf("symbol %s: %d bytes at %#x are not all in the file", name, found.Size, found.Value)
		}
		at := p.Off + within
		return library[at : at+found.Size : at+found.Size], nil
	}
	return nil, fmt.Errorf("symbol %s: address %#x is not in the file", name, found.Value)
}

// kernelAddress finds what the function stores through its pointers, as 64-bit MOV of a
// 32-bit constant to the address in a register (REX.W C7 /0): the kernel's address, in newer libraries
// also its entry, and the size. The entry is in the kernel, so the address is the
// lower of the two.
func kernelAddress(code []byte, size uint64) (uint64, error) {
	const instruction = 7
	if len(code) > maxKrunAccessor {
		return 0, fmt.Errorf("%s has %d bytes, at most %d allowed", symbolGetKernel, len(code), maxKrunAccessor)
	}
	var stored []uint64
	for i := 0; i+instruction <= len(code); i++ {
		// Registers 4 and 5 in the last byte of the operation are other forms of address.
		if code[i] != 0x48 || code[i+1] != 0xc7 || code[i+2] > 7 || code[i+2] == 4 || code[i+2] == 5 {
			continue
		}
		if v := uint64(binary.LittleEndian.Uint32(code[i+3:])); v != size && !slices.Contains(stored, v) {
			stored = append(stored, v)
		}
		i += instruction - 1
	}
	if len(stored) == 0 || len(stored) > 2 {
		return 0, fmt.Errorf("%s stores %d addresses, want the kernel's and its entry's", symbolGetKernel, len(stored))
	}
	address := slices.Min(stored)
	if address == 0 || address%pageSize != 0 || slices.Max(stored)-address >= size {
		return 0, fmt.Errorf("%s stores %#x, want a page's address and one in the kernel", symbolGetKernel, stored)
	}
	return address, nil
}
