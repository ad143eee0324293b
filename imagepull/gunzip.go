// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

var errGzip = errors.New("invalid gzip data")

const (
	gzipDeflate = 8
	flagHCRC    = 1 << 1
	flagExtra   = 1 << 2
	flagName    = 1 << 3
	flagComment = 1 << 4
	flagUnknown = 0xe0
	// maxGzipText caps the file name and the comment in a header; nobody reads
	// them here.
	maxGzipText = 1 << 20
)

// gunzip reads a gzip file of any number of members (RFC 1952). A member's
// checksum and length are verified at its end, and what follows the last member
// must be the end of the input.
type gunzip struct {
	*inflater
	inMember bool
	members  int
	crc      uint32
	size     uint32 // modulo 2^32, as in the trailer
	err      error
}

func newGunzip() *gunzip { return &gunzip{inflater: newInflater()} }

func (g *gunzip) reset(r io.Reader) error {
	g.resetInput(r)
	g.inMember, g.members, g.err = false, 0, nil
	return nil
}

// Read returns io.EOF at the end of the input behind a member.
func (g *gunzip) Read(p []byte) (int, error) {
	for g.err == nil {
		if !g.inMember {
			g.err = g.nextMember()
			continue
		}
		n, err := g.inflater.Read(p)
		g.crc = crc32.Update(g.crc, crc32.IEEETable, p[:n])
		g.size += uint32(n) //nolint:gosec // modulo 2^32
		if n > 0 {
			return n, nil
		}
		if errors.Is(err, io.EOF) {
			err = g.trailer()
		}
		g.err = err
	}
	return 0, g.err
}

func (g *gunzip) nextMember() error {
	more, err := g.more()
	if err != nil {
		return err
	}
	if !more {
		if g.members == 0 {
			return io.ErrUnexpectedEOF
		}
		return io.EOF
	}
	if err := g.memberHeader(); err != nil {
		return err
	}
	g.members++
	g.inMember, g.crc, g.size = true, 0, 0
	g.begin()
	return nil
}

func (g *gunzip) memberHeader() error {
	var h [10]byte
	if err := g.next(h[:]); err != nil {
		return err
	}
	if h[0] != 0x1f || h[1] != 0x8b || h[2] != gzipDeflate || h[3]&flagUnknown != 0 {
		return fmt.Errorf("%w: header % x", errGzip, h[:4])
	}
	crc := crc32.ChecksumIEEE(h[:])
	if h[3]&flagExtra != 0 {
		if err := g.extra(&crc); err != nil {
			return err
		}
	}
	for _, flag := range []byte{flagName, flagComment} {
		if h[3]&flag != 0 {
			if err := g.text(&crc); err != nil {
				return err
			}
		}
	}
	if h[3]&flagHCRC != 0 {
		var want [2]byte
		if err := g.next(want[:]); err != nil {
			return err
		}
		if binary.LittleEndian.Uint16(want[:]) != uint16(crc) { //nolint:gosec // its low half
			return fmt.Errorf("%w: header checksum", errGzip)
		}
	}
	return nil
}

func (g *gunzip) extra(crc *uint32) error {
	var n [2]byte
	if err := g.next(n[:]); err != nil {
		return err
	}
	field := make([]byte, binary.LittleEndian.Uint16(n[:]))
	if err := g.next(field); err != nil {
		return err
	}
	*crc = crc32.Update(*crc, crc32.IEEETable, n[:])
	*crc = crc32.Update(*crc, crc32.IEEETable, field)
	return nil
}

// text skips a string that ends with a zero byte.
func (g *gunzip) text(crc *uint32) error {
	for range maxGzipText {
		var b [1]byte
		if err := g.next(b[:]); err != nil {
			return err
		}
		*crc = crc32.Update(*crc, crc32.IEEETable, b[:])
		if b[0] == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: a name or comment of more than %d bytes", errGzip, maxGzipText)
}

func (g *gunzip) trailer() error {
	var t [8]byte
	if err := g.next(t[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(t[:]) != g.crc || binary.LittleEndian.Uint32(t[4:]) != g.size {
		return fmt.Errorf("%w: checksum or length", errGzip)
	}
	g.inMember = false
	return nil
}
