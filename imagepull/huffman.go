// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"
	"math/bits"
)

const (
	maxLitCodes   = 288 // 286 and 287 occur in the fixed code alone
	maxDistCodes  = 32  // 30 and 31 likewise
	maxCodeLength = 15
	endOfBlock    = 256

	litBits  = 11 // first-level tables: most codes are no longer
	distBits = 8
	// tableSize bounds a first-level table and everything below it. The most
	// that 288 codes of up to 15 bits need with 11 first bits is 2342.
	tableSize = 4096
)

// A table entry, from the low bits up: 6 bits with the number of bits to drop,
// extra bits included; at bit 8 the length of the code alone, 4 bits; 4 flags
// from bit 12 on; at bit 16 the value: the literal, the base of the length or
// distance, or, for a link, the index of the second-level table, whose own number
// of bits is where otherwise the code's length is.
const (
	isSpecial = 1 << 15 // a link, the end of the block or no code at all
	isLink    = 1 << 14
	isEnd     = 1 << 13
	isLiteral = 1 << 31
	invalid   = isSpecial
)

// huffman decodes one canonical code (RFC 1951, 3.2.2).
type huffman struct {
	mask  uint64 // of the bits that index the first level
	table [tableSize]uint32
}

// symbolTables hold each symbol's entry but for what depends on its code.
type symbolTables struct {
	lit  [maxLitCodes]uint32
	dist [maxDistCodes]uint32
	code [19]uint32
}

// newSymbolTables follows RFC 1951, 3.2.5: eight lengths without extra bits,
// then four for each further bit; four distances, then two.
func newSymbolTables() (t symbolTables) {
	for i := range t.code {
		t.code[i] = uint32(i) << 16 //nolint:gosec // below 19
	}
	for i := range t.lit {
		t.lit[i] = invalid
	}
	for i := range 256 {
		t.lit[i] = isLiteral | uint32(i)<<16 //nolint:gosec // below 256
	}
	t.lit[endOfBlock] = isSpecial | isEnd
	base := uint32(3)
	for i := range uint32(28) {
		extra := max(i/4, 1) - 1
		t.lit[257+i] = base<<16 | extra
		base += 1 << extra
	}
	t.lit[285] = maxMatch << 16
	base = 1
	for i := range uint32(30) {
		extra := max(i/2, 1) - 1
		t.dist[i] = base<<16 | extra
		base += 1 << extra
	}
	t.dist[30], t.dist[31] = invalid, invalid
	return t
}

// build makes the decoding table for the codes with the given lengths, 0 for a
// symbol that does not occur. As in zlib and in Go, a code must use all its bit
// patterns, except that one symbol of one bit, or none at all, is no error until
// something else is read.
func (h *huffman) build(lengths []uint8, symbols []uint32, rootBits int) error {
	var count, next [maxCodeLength + 1]int
	longest := 0
	for _, n := range lengths {
		count[n]++
		longest = max(longest, int(n))
	}
	used := len(lengths) - count[0]
	count[0] = 0
	left := 1
	for n := 1; n <= longest; n++ {
		left = left<<1 - count[n]
		if left < 0 {
			return fmt.Errorf("%w: over-subscribed code", errDeflate)
		}
		next[n] = next[n-1] + count[n-1]
	}
	incomplete := left > 0
	if incomplete && (used > 1 || longest > 1) {
		return fmt.Errorf("%w: incomplete code", errDeflate)
	}
	var sorted [maxLitCodes]uint16
	for symbol, n := range lengths {
		if n > 0 {
			sorted[next[n]] = uint16(symbol) //nolint:gosec // below 288
			next[n]++
		}
	}
	root := min(rootBits, max(longest, 1))
	h.mask = 1<<root - 1
	if incomplete {
		h.table[0], h.table[1] = invalid, invalid
	}
	return h.fill(sorted[:used], lengths, symbols, count, root, longest)
}

// fill enters the symbols in the order of their codes.
func (h *huffman) fill(sorted []uint16, lengths []uint8, symbols []uint32, count [maxCodeLength + 1]int, root, longest int) error {
	code, n := 0, 0 // the next code, of n bits
	free := 1 << root
	link, linkBits := -1, 0
	for _, symbol := range sorted {
		code <<= int(lengths[symbol]) - n
		n = int(lengths[symbol])
		reversed := int(bits.Reverse16(uint16(code)) >> (16 - n)) //nolint:gosec // at most 15 bits
		code++
		entry := symbols[symbol]
		if n <= root {
			entry += uint32(n) | uint32(n)<<8 //nolint:gosec // at most 15
			for i := reversed; i < 1<<root; i += 1 << n {
				h.table[i] = entry
			}
			count[n]--
			continue
		}
		if first := reversed & (1<<root - 1); first != link {
			link, linkBits = first, secondLevel(count, n, root, longest)
			if free+1<<linkBits > tableSize {
				return fmt.Errorf("%w: code too large", errDeflate)
			}
			h.table[link] = isSpecial | isLink | uint32(free)<<16 | uint32(linkBits)<<8 | uint32(root) //nolint:gosec // below tableSize
			free += 1 << linkBits
		}
		start := free - 1<<linkBits
		entry += uint32(n-root) | uint32(n-root)<<8 //nolint:gosec // at most 15
		for i := reversed >> root; i < 1<<linkBits; i += 1 << (n - root) {
			h.table[start+i] = entry
		}
		count[n]--
	}
	return nil
}

// secondLevel is the number of bits of a second-level table whose first code has
// n bits: as few as hold all codes with the same first bits.
func secondLevel(count [maxCodeLength + 1]int, n, root, longest int) int {
	b := n - root
	for room := 1 << b; b+root < longest; {
		if room -= count[b+root]; room <= 0 {
			break
		}
		b++
		room <<= 1
	}
	return b
}

// makeFixed makes the fixed codes (RFC 1951, 3.2.6).
func (f *inflater) makeFixed() error {
	var lengths [maxLitCodes]uint8
	for i := range lengths {
		switch {
		case i < 144 || i >= 280:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		default:
			lengths[i] = 7
		}
	}
	lit, dist := new(huffman), new(huffman)
	if err := lit.build(lengths[:], f.symbols.lit[:], litBits); err != nil {
		return err
	}
	for i := range maxDistCodes {
		lengths[i] = 5
	}
	if err := dist.build(lengths[:maxDistCodes], f.symbols.dist[:], distBits); err != nil {
		return err
	}
	f.fixedLit, f.fixedDist = lit, dist
	return nil
}

// dynamicHeader reads the codes of a block that brings its own (3.2.7).
func (f *inflater) dynamicHeader() error {
	litCodes, distCodes := int(f.take(5))+257, int(f.take(5))+1
	if litCodes > 286 || distCodes > 30 {
		return fmt.Errorf("%w: %d length and %d distance codes", errDeflate, litCodes, distCodes)
	}
	n := int(f.take(4)) + 4
	var lengths [19]uint8
	for i, symbol := range [...]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		if i == n {
			break
		}
		if err := f.need(); err != nil {
			return err
		}
		lengths[symbol] = uint8(f.take(3)) //nolint:gosec // three bits
	}
	// The table of the code lengths' code is not needed when the others are made.
	if err := f.dynDist.build(lengths[:], f.symbols.code[:], 7); err != nil {
		return err
	}
	if err := f.readLengths(litCodes + distCodes); err != nil {
		return err
	}
	if err := f.dynLit.build(f.codeLengths[:litCodes], f.symbols.lit[:], litBits); err != nil {
		return err
	}
	return f.dynDist.build(f.codeLengths[litCodes:litCodes+distCodes], f.symbols.dist[:], distBits)
}

// readLengths reads n code lengths, themselves in the code that dynDist has.
func (f *inflater) readLengths(n int) error {
	for i := 0; i < n; {
		if err := f.need(); err != nil {
			return err
		}
		e := f.dynDist.table[f.bits&f.dynDist.mask]
		if e&isSpecial != 0 {
			return fmt.Errorf("%w: code length", errDeflate)
		}
		f.take(uint(e & 63))
		length, repeat := uint8(0), 1
		switch symbol := e >> 16; {
		case symbol < 16:
			length = uint8(symbol) //nolint:gosec // below 16
		case symbol == 16 && i == 0:
			return fmt.Errorf("%w: nothing to repeat", errDeflate)
		case symbol == 16:
			length, repeat = f.codeLengths[i-1], 3+int(f.take(2))
		case symbol == 17:
			repeat = 3 + int(f.take(3))
		default:
			repeat = 11 + int(f.take(7))
		}
		if i+repeat > n {
			return fmt.Errorf("%w: too many code lengths", errDeflate)
		}
		for range repeat {
			f.codeLengths[i] = length
			i++
		}
	}
	return nil
}
