// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"fmt"
)

// Entry types, POSIX.1-2001 pax "ustar Interchange Format" and GNU tar "Basic Tar Format".
const (
	typeOldFile    = 0
	typeFile       = '0'
	typeHardLink   = '1'
	typeSymlink    = '2'
	typeChar       = '3'
	typeBlock      = '4'
	typeDir        = '5'
	typeFIFO       = '6'
	typeContiguous = '7'
	typePax        = 'x'
	typePaxGlobal  = 'g'
	typeGNUName    = 'L'
	typeGNULink    = 'K'
	typeGNUSparse  = 'S'
)

// dialect is how the bytes behind the magic are to be read.
type dialect int

const (
	dialectV7 dialect = iota
	dialectUstar
	dialectGNU
)

// header is one header block with its numbers read. Its fields are at fixed offsets: name 0, mode 100, uid 108,
// gid 116, size 124, mtime 136, checksum 148, type 156, link 157, magic 257, devices 329, ustar prefix 345.
type header struct {
	raw                  []byte // of 512 bytes, valid until the stream moves on
	dialect              dialect
	mode, uid, gid, size int64 // not negative
	mtime                int64
	major, minor         int64 // 0 in v7
}

// kind is the type flag.
func (h *header) kind() byte { return h.raw[156] }

// parse checks the block and reads all its numbers, those too that its type does not use: every reader must agree that
// it is a header.
func (h *header) parse(block []byte) error {
	*h = header{raw: block}
	if err := h.check(); err != nil {
		return err
	}
	var unused int64
	fields := []struct {
		what     string
		from, to int
		value    *int64
		signed   bool
	}{
		{"mode", 100, 108, &h.mode, false},
		{"uid", 108, 116, &h.uid, false},
		{"gid", 116, 124, &h.gid, false},
		{"size", 124, 136, &h.size, false},
		{"mtime", 136, 148, &h.mtime, true},
		{"device major", 329, 337, &h.major, true},
		{"device minor", 337, 345, &h.minor, true},
		{"access time", 345, 357, &unused, true}, // GNU only: some readers take other content for a ustar prefix
		{"change time", 357, 369, &unused, true},
	}
	used := len(fields)
	switch h.dialect {
	case dialectV7:
		used -= 4
	case dialectUstar:
		used -= 2
	}
	for _, f := range fields[:used] {
		n, err := number(block[f.from:f.to])
		if err != nil {
			return fmt.Errorf("%s: %w", f.what, err)
		}
		if n < 0 && !f.signed {
			return fmt.Errorf("%w: %s is negative: %d", ErrFormat, f.what, n)
		}
		*f.value = n
	}
	return nil
}

// check verifies the checksum and tells the dialect.
func (h *header) check() error {
	field := h.raw[148:156]
	want, err := number(field)
	if err != nil {
		return fmt.Errorf("checksum: %w", err)
	}
	if want <= 0 || field[0]&0x80 != 0 { // the field's own spaces make every sum of bytes positive
		return fmt.Errorf("%w: header checksum field %q", ErrFormat, field)
	}
	// The checksum field itself counts as eight spaces.
	sum := int64(8 * ' ')
	for _, b := range h.raw[:148] {
		sum += int64(b)
	}
	for _, b := range h.raw[156:512] {
		sum += int64(b)
	}
	// Old implementations summed signed bytes; every reader takes either.
	if want != sum && want != signedSum(h.raw) {
		return fmt.Errorf("%w: header checksum is %d, want %d", ErrFormat, want, sum)
	}
	magic := h.raw[257:265]
	switch {
	case string(magic) == "ustar  \x00":
		h.dialect = dialectGNU
	case string(magic[:6]) == "ustar\x00" && string(h.raw[508:512]) == "tar\x00":
		return fmt.Errorf("%w: star header", ErrFormat)
	case string(magic[:6]) == "ustar\x00":
		h.dialect = dialectUstar
	case string(magic) == "\x00\x00\x00\x00\x00\x00\x00\x00":
		h.dialect = dialectV7
	default:
		return fmt.Errorf("%w: unknown magic %q", ErrFormat, magic)
	}
	return nil
}

func signedSum(block []byte) int64 {
	sum := int64(8 * ' ')
	for i, b := range block {
		if i < 148 || i >= 156 {
			sum += int64(int8(b))
		}
	}
	return sum
}

// text is a field that ends with the first NUL or at its full length.
func text(field []byte) string {
	if i := bytes.IndexByte(field, 0); i >= 0 {
		field = field[:i]
	}
	return string(field)
}

// name joins the ustar prefix with the name.
func (h *header) name() string {
	name := text(h.raw[:100])
	if h.dialect == dialectUstar && h.raw[345] != 0 {
		return text(h.raw[345:500]) + "/" + name
	}
	return name
}

// number reads a numeric field: octal digits between spaces and NULs, or GNU's base-256 form, which has the top bit
// of its first byte set and is a two's complement number. An empty field is 0.
func number(field []byte) (int64, error) {
	if field[0]&0x80 != 0 {
		return base256(field)
	}
	digits := bytes.TrimLeft(field, " ")
	n := int64(0)
	for i, c := range digits {
		if c == ' ' || c == 0 {
			if len(bytes.Trim(digits[i:], " \x00")) != 0 {
				return 0, fmt.Errorf("%w: numeric field %q", ErrFormat, field)
			}
			break
		}
		if c < '0' || c > '7' {
			return 0, fmt.Errorf("%w: numeric field %q", ErrFormat, field)
		}
		n = n<<3 | int64(c-'0') // 12 digits at most: cannot overflow
	}
	return n, nil
}

func base256(field []byte) (int64, error) {
	sign := int64(0)
	if field[0]&0x40 != 0 {
		sign = -1
	}
	n := sign
	for i, b := range field {
		if i == 0 && sign == 0 {
			b &^= 0x80
		}
		if n>>55 != sign { // the next shift would lose bits or the sign
			return 0, fmt.Errorf("%w: numeric field %x does not fit 64 bits", ErrFormat, field)
		}
		n = n<<8 | int64(b)
	}
	return n, nil
}

// natural is number for what cannot be negative.
func natural(what string, field []byte) (int64, error) {
	n, err := number(field)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", what, err)
	}
	if n < 0 {
		return 0, fmt.Errorf("%w: %s is negative: %d", ErrFormat, what, n)
	}
	return n, nil
}
