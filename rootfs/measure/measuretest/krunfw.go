// SPDX-License-Identifier: Apache-2.0

package measuretest

import "encoding/binary"

// KrunSymbol is a dynamic symbol of a library.
type KrunSymbol struct {
	Name    string
	Kind    byte // 1 for data, 2 for code
	Content []byte
}

// KrunAddress is where KrunSymbols puts the kernel.
const KrunAddress = 0x1000000

// KrunSymbols are those of libkrunfw-sev, with a kernel and an initrd of two pages and
// one that begin with these texts.
func KrunSymbols(kernel, initrd string) []KrunSymbol {
	bundle := func(size int, text string) []byte {
		b := make([]byte, size+1) // with the NUL of a C string
		copy(b, text)
		return b
	}
	return []KrunSymbol{
		{"QBOOT_BUNDLE", 1, bundle(0x10000, "qboot")},
		{"KERNEL_BUNDLE", 1, bundle(0x2000, kernel)},
		{"INITRD_BUNDLE", 1, bundle(0x1000, initrd)},
		{"krunfw_get_kernel", 2, KrunAccessor(KrunAddress, 0x2000)},
	}
}

// KrunAccessor is code that stores constants to where RDI points, and returns.
func KrunAccessor(constants ...uint32) []byte {
	var code []byte
	for _, c := range constants {
		code = binary.LittleEndian.AppendUint32(append(code, 0x48, 0xc7, 0x07), c)
	}
	return append(code, 0xc3)
}

// KrunLibrary makes a shared library for x86-64 with these dynamic symbols: one
// segment, which is the whole file.
func KrunLibrary(symbols ...KrunSymbol) []byte {
	const header, program, section, entry = 64, 56, 64, 24
	le := binary.LittleEndian
	names := []byte{0}
	table := make([]byte, entry) // the first symbol is none
	content := make([]byte, header+program)
	for _, s := range symbols {
		e := make([]byte, entry)
		le.PutUint32(e, uint32(len(names)))
		e[4] = 1<<4 | s.Kind        // global
		le.PutUint16(e[6:], 0xfff1) // of no section
		le.PutUint64(e[8:], uint64(len(content)))
		le.PutUint64(e[16:], uint64(len(s.Content)))
		names = append(append(names, s.Name...), 0)
		table = append(table, e...)
		content = append(content, s.Content...)
	}
	type part struct {
		kind, link uint32
		content    []byte
		each       uint64
	}
	parts := []part{{}, {11, 2, table, entry}, {3, 0, names, 0}} // nothing, symbols, names
	var sections []byte
	for _, p := range parts {
		e := make([]byte, section)
		le.PutUint32(e[4:], p.kind)
		le.PutUint64(e[24:], uint64(len(content)))
		le.PutUint64(e[32:], uint64(len(p.content)))
		le.PutUint32(e[40:], p.link)
		le.PutUint64(e[56:], p.each)
		sections = append(sections, e...)
		content = append(content, p.content...)
	}
	copy(content, "\x7fELF\x02\x01\x01")
	le.PutUint16(content[16:], 3)  // shared object
	le.PutUint16(content[18:], 62) // x86-64
	le.PutUint32(content[20:], 1)
	le.PutUint64(content[32:], header)
	le.PutUint64(content[40:], uint64(len(content)))
	le.PutUint16(content[52:], header)
	le.PutUint16(content[54:], program)
	le.PutUint16(content[56:], 1)
	le.PutUint16(content[58:], section)
	le.PutUint16(content[60:], uint16(len(parts)))
	le.PutUint16(content[62:], 2)
	le.PutUint32(content[header:], 1)                       // loaded
	le.PutUint64(content[header+32:], uint64(len(content))) // in the file
	le.PutUint64(content[header+40:], uint64(len(content))) // in memory
	return append(content, sections...)
}
