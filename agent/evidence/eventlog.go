// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	eventNoAction = 3    // EV_NO_ACTION: says something, measures nothing
	algSHA384     = 0x0C // TPM_ALG_SHA384
	// maxDigests is above the number of hash algorithms that a log can have.
	maxDigests = 8
	// legacyEventSize is a TCG_PCClientPCREvent up to its event: index, type, SHA-1, size.
	legacyEventSize = 32
)

// ReplayEventLog computes what RTMR0 to RTMR3 hold, SHA-384, when each event of a CCEL
// was extended into the register it names (TCG PC Client Platform Firmware Profile
// section 10.2; UEFI 2.10 section 38.4.1: index 1 is RTMR0). The log ends at its last
// byte, or where eight bytes of 0xFF or zero stand in place of an event. An event for
// another register, or without exactly one SHA-384 digest, is an error.
func ReplayEventLog(raw []byte) ([4][sha512.Size384]byte, error) {
	registers, err := replay(raw)
	if err != nil {
		return registers, fmt.Errorf("replaying event log: %w", err)
	}
	return registers, nil
}

func replay(raw []byte) (registers [4][sha512.Size384]byte, err error) {
	c, err := openLog(raw)
	if err != nil {
		return registers, err
	}
	for n := 1; c.err == nil && !logEnds(c.rest); n++ {
		e := c.event(algSHA384)
		if c.err == nil && e.digest == nil {
			c.err = errors.New("no SHA-384 digest")
		}
		switch {
		case c.err != nil:
			return registers, fmt.Errorf("event %d: %w", n, c.err)
		case e.kind == eventNoAction:
		case e.index < 1 || e.index > 4:
			return registers, fmt.Errorf("event %d: register index %d, want 1 to 4", n, e.index)
		default:
			r := &registers[e.index-1]
			*r = sha512.Sum384(append(r[:], e.digest...))
		}
	}
	return registers, c.err
}

// openLog reads the first event, which says that the log is crypto-agile.
func openLog(raw []byte) (*cutter, error) {
	if len(raw) > MaxEventLogSize {
		return nil, fmt.Errorf("%d bytes, at most %d allowed", len(raw), MaxEventLogSize)
	}
	c := &cutter{rest: raw}
	head := c.take("first event", legacyEventSize)
	if c.err != nil {
		return nil, c.err
	}
	if kind := binary.LittleEndian.Uint32(head[4:]); kind != eventNoAction {
		return nil, fmt.Errorf("first event is of type %#x, want %#x", kind, eventNoAction)
	}
	// Guests without a firmware log send zeros where the name stands (guest-components'
	// event log); what is replayed has to give the signed registers all the same.
	spec := c.take("first event", binary.LittleEndian.Uint32(head[28:]))
	if c.err == nil && !bytes.HasPrefix(spec, []byte("Spec ID Event03\x00")) && !bytes.HasPrefix(spec, make([]byte, 24)) {
		return nil, errors.New("first event does not name a log with several hash algorithms")
	}
	return c, c.err
}

func logEnds(rest []byte) bool {
	return len(rest) == 0 || bytes.HasPrefix(rest, bytes.Repeat([]byte{0xFF}, 8)) || bytes.HasPrefix(rest, make([]byte, 8))
}

// logEvent is a TCG_PCR_EVENT2 with its digest by one algorithm, nil for none.
type logEvent struct {
	index, kind  uint32
	digest, data []byte
}

// event takes one event and of its digests that by the algorithm want.
func (c *cutter) event(want uint16) (e logEvent) {
	head := c.take("event header", 12)
	if c.err != nil {
		return e
	}
	e.index, e.kind = binary.LittleEndian.Uint32(head), binary.LittleEndian.Uint32(head[4:])
	count := binary.LittleEndian.Uint32(head[8:])
	if count > maxDigests {
		c.err = fmt.Errorf("%d digests, at most %d allowed", count, maxDigests)
		return e
	}
	sizes := map[uint16]uint32{0x04: 20, 0x0B: 32, algSHA384: 48, 0x0D: 64, 0x12: 32}
	for range count {
		id := c.take("hash algorithm", 2)
		if c.err != nil {
			return e
		}
		alg := binary.LittleEndian.Uint16(id)
		size, known := sizes[alg]
		if !known || (alg == want && e.digest != nil) {
			c.err = fmt.Errorf("hash algorithm %#x is unknown or occurs twice", alg)
			return e
		}
		if sum := c.take("digest", size); alg == want {
			e.digest = sum
		}
	}
	e.data = c.sized32("event")
	return e
}
