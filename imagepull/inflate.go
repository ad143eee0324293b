// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	// deflateWindow is how far back a match may reach (RFC 1951, 2).
	deflateWindow = 32 << 10
	maxMatch      = 258
	// outputBuffer is what is decoded at a time; behind it there is room for
	// what one turn of the loop writes.
	outputBuffer = 128 << 10
	outputSlack  = 3 + matchCopy
	// matchCopy is what copying a match may touch.
	matchCopy   = maxMatch + 16
	inputBuffer = 64 << 10
	// inputMargin is what one turn of the decoding loop may load.
	inputMargin = 16
	// inputPadding zeros stand behind the end of the input, so that the loop
	// needs no second, careful version. Whoever uses them up has read too far.
	inputPadding = 2*inputMargin + 8
)

var errDeflate = errors.New("invalid deflate data")

// inflater decodes DEFLATE (RFC 1951). Most of the time of a pull is spent here,
// and the loop is built for that: 64 bits of input at a time, tables that
// resolve a symbol with its extra bits in one step, and matches copied in words.
// It is plain Go, so that an index that a hostile stream makes wrong is a panic at
// worst; there is none, as the fuzz target beside it says.
type inflater struct {
	r        io.Reader
	in       []byte
	pos, end int   // in[pos:end] is not yet loaded into bits
	real     int   // end of the input in in, once atEOF
	atEOF    bool  // in[real:end] is padding
	err      error // of r, other than io.EOF

	bits  uint64 // next bit lowest; above nbits there may be more, not counted
	nbits uint

	out    []byte // the window and what follows it
	low    int    // out[low:wr] may be referred to
	rd, wr int    // out[rd:wr] is not yet read

	failed      error // of the blocks, or of their input
	stored      int   // bytes left of a stored block
	inBlock     bool  // inside a compressed block
	final       bool  // the block is the last one
	lit, dist   *huffman
	dynLit      huffman
	dynDist     huffman
	fixedLit    *huffman // made when first needed
	fixedDist   *huffman
	symbols     symbolTables
	codeLengths [maxLitCodes + maxDistCodes]uint8
}

func newInflater() *inflater {
	return &inflater{
		in: make([]byte, inputBuffer+inputPadding), out: make([]byte, deflateWindow+outputBuffer+outputSlack),
		symbols: newSymbolTables(),
	}
}

// resetInput starts with another input.
func (f *inflater) resetInput(r io.Reader) {
	f.r, f.pos, f.end, f.atEOF, f.err = r, 0, 0, false, nil
	f.bits, f.nbits = 0, 0
	f.rd, f.wr = 0, 0
	f.begin()
}

// begin starts another stream of blocks in the same input.
func (f *inflater) begin() {
	f.low = f.wr
	f.failed, f.inBlock, f.final, f.stored = nil, false, false, 0
}

// Read returns io.EOF behind the last block, and io.ErrUnexpectedEOF when the
// input ends before it.
func (f *inflater) Read(p []byte) (int, error) {
	for f.rd == f.wr {
		f.slide()
		if err := f.decode(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.out[f.rd:f.wr])
	f.rd += n
	return n, nil
}

// slide makes room in out, keeping the window.
func (f *inflater) slide() {
	if f.wr < deflateWindow+outputBuffer/2 {
		return
	}
	shift := f.wr - deflateWindow
	copy(f.out, f.out[shift:f.wr])
	f.rd, f.wr, f.low = deflateWindow, deflateWindow, max(f.low-shift, 0)
}

// decode makes some output. What it has made before an error stays readable: it
// returns nil then, and the error when called again.
func (f *inflater) decode() error {
	for f.rd == f.wr {
		var err error
		switch {
		case f.failed != nil:
			return f.failed
		case f.stored > 0:
			err = f.copyStored()
		case f.inBlock:
			err = f.block()
		case f.final:
			return io.EOF
		default:
			err = f.header()
		}
		if errors.Is(err, errDeflate) && f.overrun() {
			err = io.ErrUnexpectedEOF // it is the padding that makes no sense
		}
		f.failed = err
	}
	return nil
}

// overrun reports whether bits were used that are behind the input's end.
func (f *inflater) overrun() bool {
	return f.atEOF && f.pos-int(f.nbits>>3) > f.real
}

// load reads more input until the decoding loop can run a turn. It keeps what is
// in bits, which unload may hand back.
func (f *inflater) load() error {
	keep := min(f.pos, 8)
	n := copy(f.in, f.in[f.pos-keep:f.end])
	f.real -= f.pos - keep
	f.pos, f.end = keep, n
	for idle := 0; f.end-f.pos < inputMargin; {
		switch {
		case f.err != nil:
			return f.err
		case f.atEOF:
			return io.ErrUnexpectedEOF // the padding is used up
		}
		n, err := f.r.Read(f.in[f.end:inputBuffer])
		f.end += n
		if idle++; n > 0 {
			idle = 0
		}
		switch {
		case errors.Is(err, io.EOF):
			f.atEOF, f.real = true, f.end
			clear(f.in[f.end : f.end+inputPadding])
			f.end += inputPadding
		case err != nil:
			f.err = err
		case idle == maxIdleReads:
			f.err = io.ErrNoProgress
		}
	}
	return nil
}

// need makes at least 48 bits available.
func (f *inflater) need() error {
	if f.end-f.pos < inputMargin {
		if err := f.load(); err != nil {
			return err
		}
	}
	f.bits |= binary.LittleEndian.Uint64(f.in[f.pos:]) << (f.nbits & 63)
	f.pos += int((63 - f.nbits) >> 3)
	f.nbits |= 56
	return nil
}

// take removes n of the bits that need has made available.
func (f *inflater) take(n uint) uint32 {
	v := uint32(f.bits & (1<<(n&63) - 1)) //nolint:gosec // n is at most 16
	f.bits >>= n & 63
	f.nbits -= n
	return v
}

// unload gives whole bytes in bits back to the input and drops the rest of the
// current byte. It fails when bits were used that are behind the input's end.
func (f *inflater) unload() error {
	if f.overrun() {
		return io.ErrUnexpectedEOF
	}
	f.pos -= int(f.nbits >> 3)
	f.bits, f.nbits = 0, 0
	return nil
}

// next fills p with the bytes that follow the last block, after unload.
func (f *inflater) next(p []byte) error {
	for len(p) > 0 {
		more, err := f.more()
		if err != nil {
			return err
		}
		if !more {
			return io.ErrUnexpectedEOF
		}
		n := copy(p, f.in[f.pos:f.have()])
		p = p[n:]
		f.pos += n
	}
	return nil
}

// more reports whether the input has another byte.
func (f *inflater) more() (bool, error) {
	if f.pos >= f.have() && !f.atEOF {
		f.pos, f.end = 0, 0
		if err := f.load(); err != nil {
			return false, err
		}
	}
	return f.pos < f.have(), nil
}

// have is the end of the input in in, without padding.
func (f *inflater) have() int {
	if f.atEOF {
		return f.real
	}
	return f.end
}

// header reads the header of the next block (RFC 1951, 3.2.3).
func (f *inflater) header() error {
	if err := f.need(); err != nil {
		return err
	}
	f.final = f.take(1) == 1
	switch f.take(2) {
	case 0:
		return f.storedHeader()
	case 1:
		if f.fixedLit == nil {
			if err := f.makeFixed(); err != nil {
				return err
			}
		}
		f.lit, f.dist = f.fixedLit, f.fixedDist
	case 2:
		if err := f.dynamicHeader(); err != nil {
			return err
		}
		f.lit, f.dist = &f.dynLit, &f.dynDist
	default:
		return fmt.Errorf("%w: block type 3", errDeflate)
	}
	f.inBlock = true
	return nil
}

// storedHeader reads the length of a stored block (3.2.4).
func (f *inflater) storedHeader() error {
	if err := f.unload(); err != nil {
		return err
	}
	if err := f.need(); err != nil {
		return err
	}
	n, check := f.take(16), f.take(16)
	if n != ^check&0xffff {
		return fmt.Errorf("%w: length of a stored block", errDeflate)
	}
	f.stored = int(n)
	if n > 0 || f.final {
		return f.unload()
	}
	return nil
}

func (f *inflater) copyStored() error {
	more, err := f.more()
	if err != nil {
		return err
	}
	if !more {
		return io.ErrUnexpectedEOF
	}
	n := copy(f.out[f.wr:deflateWindow+outputBuffer], f.in[f.pos:min(f.have(), f.pos+f.stored)])
	f.pos += n
	f.wr += n
	f.stored -= n
	return nil
}

// block decodes symbols until the block, the room for output or the input ends.
// A turn of its loop uses at most 56 bits between loads: three literals of up to
// 11, or a length of up to 20 and a distance of up to 28. It is one long function
// so that its state stays in registers.
func (f *inflater) block() error {
	in, out, low := f.in[:f.end], f.out, f.low
	bits, nbits, pos, wr := f.bits, f.nbits, f.pos, f.wr
	lit, dist := f.lit, f.dist
	litMask, distMask := lit.mask, dist.mask
	var err error
	for f.inBlock && wr < deflateWindow+outputBuffer {
		if len(in)-pos < inputMargin {
			f.pos = pos
			err = f.load()
			if in, pos = f.in[:f.end], f.pos; err != nil {
				break
			}
		}
		bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
		pos += int((63 - nbits) >> 3)
		nbits |= 56

		e := lit.table[bits&litMask]
		if e&isLiteral != 0 {
			bits >>= e & 63
			nbits -= uint(e & 63)
			out[wr] = byte(e >> 16)
			wr++
			if e = lit.table[bits&litMask]; e&isLiteral != 0 {
				bits >>= e & 63
				nbits -= uint(e & 63)
				out[wr] = byte(e >> 16)
				wr++
				if e = lit.table[bits&litMask]; e&isLiteral != 0 {
					bits >>= e & 63
					nbits -= uint(e & 63)
					out[wr] = byte(e >> 16)
					wr++
					continue
				}
			}
			bits |= binary.LittleEndian.Uint64(in[pos:]) << (nbits & 63)
			pos += int((63 - nbits) >> 3)
			nbits |= 56
		}
		if e&isSpecial != 0 {
			if e&isLink != 0 {
				bits >>= e & 63
				nbits -= uint(e & 63)
				e = lit.table[uint64(e>>16)+bits&(1<<(e>>8&15)-1)]
			}
			if e&isLiteral != 0 {
				bits >>= e & 63
				nbits -= uint(e & 63)
				out[wr] = byte(e >> 16)
				wr++
				continue
			}
			if e&isSpecial != 0 {
				if e&isEnd == 0 {
					err = fmt.Errorf("%w: literal or length code", errDeflate)
					break
				}
				bits >>= e & 63
				nbits -= uint(e & 63)
				f.inBlock = false
				continue
			}
		}
		length := int(e>>16) + int(bits&(1<<(e&63)-1)>>(e>>8&15)) //nolint:gosec // at most 258
		bits >>= e & 63
		nbits -= uint(e & 63)

		d := dist.table[bits&distMask]
		if d&isLink != 0 {
			bits >>= d & 63
			nbits -= uint(d & 63)
			d = dist.table[uint64(d>>16)+bits&(1<<(d>>8&15)-1)]
		}
		if d&isSpecial != 0 {
			err = fmt.Errorf("%w: distance code", errDeflate)
			break
		}
		distance := int(d>>16) + int(bits&(1<<(d&63)-1)>>(d>>8&15)) //nolint:gosec // at most 32768
		bits >>= d & 63
		nbits -= uint(d & 63)
		if distance > wr-low {
			err = fmt.Errorf("%w: distance before the first byte", errDeflate)
			break
		}
		if distance < 8 {
			copyNear(out[wr-distance:wr+length+8], distance)
			wr += length
			continue
		}
		// In words, up to 15 bytes further than the match is long.
		from, to := (*[matchCopy]byte)(out[wr-distance:]), (*[matchCopy]byte)(out[wr:])
		binary.LittleEndian.PutUint64(to[0:], binary.LittleEndian.Uint64(from[0:]))
		binary.LittleEndian.PutUint64(to[8:], binary.LittleEndian.Uint64(from[8:]))
		for i := 16; i < length; i += 8 {
			binary.LittleEndian.PutUint64(to[i:], binary.LittleEndian.Uint64(from[i:]))
		}
		wr += length
	}
	f.bits, f.nbits, f.pos, f.wr = bits, nbits, pos, wr
	if err == nil && !f.inBlock && f.final {
		err = f.unload()
	}
	return err
}

// copyNear fills all but the last 8 bytes of out, which it may write to, by
// repeating its first distance bytes, fewer than 8.
func copyNear(out []byte, distance int) {
	if distance == 1 {
		word := uint64(out[0]) * 0x0101010101010101
		for i := 1; i <= len(out)-8; i += 8 {
			binary.LittleEndian.PutUint64(out[i:], word)
		}
		return
	}
	for i := distance; i < len(out)-8; i++ {
		out[i] = out[i-distance]
	}
}
