// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/casemate/casemate/agent/evidence"
)

// ccelPath is where Linux shows the log area that the ACPI CCEL table points to.
const ccelPath = "/sys/firmware/acpi/tables/data/CCEL"

// logEndMark closes the log for its readers.
var logEndMark = bytes.Repeat([]byte{0xFF}, 8)

// emptyLogHead stands before run-time entries where there is no firmware log, as in
// guest-components: an EV_NO_ACTION event that names SHA-384 and SM3.
func emptyLogHead() []byte {
	le := binary.LittleEndian
	head := le.AppendUint32(le.AppendUint32(nil, 0), evNoAction)
	head = le.AppendUint32(append(head, make([]byte, 20)...), 24+4+8+1)
	head = le.AppendUint32(append(head, make([]byte, 24)...), 2)
	for _, algorithm := range [][2]uint16{{0x0C, 48}, {0x12, 32}} {
		head = le.AppendUint16(le.AppendUint16(head, algorithm[0]), algorithm[1])
	}
	return append(head, 0)
}

// readEventLog returns the events of the firmware without the unused rest of their
// area, then the guest's own entries, closed by eight 0xFF bytes; nil when there are
// neither. The host chose the firmware's bytes and the relying party replays them.
func readEventLog(path string, entries []byte) ([]byte, error) {
	log, err := readFirmwareLog(path)
	if err != nil {
		return nil, err
	}
	if log == nil {
		if len(entries) == 0 {
			return nil, nil
		}
		log = emptyLogHead()
	}
	log = append(append(log, entries...), logEndMark...)
	if len(log) > evidence.MaxEventLogSize {
		return nil, fmt.Errorf("event log of %d bytes, at most %d allowed", len(log), evidence.MaxEventLogSize)
	}
	return log, nil
}

// readFirmwareLog returns nil when there is no file or no event.
func readFirmwareLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading event log: %w", err)
	}
	defer f.Close()
	const limit = evidence.MaxEventLogSize - 8
	area, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading event log: %w", err)
	}
	if len(area) > limit {
		return nil, fmt.Errorf("reading event log %s: more than %d bytes", path, limit)
	}
	size, err := eventsSize(area)
	if err != nil {
		return nil, fmt.Errorf("reading event log %s: %w", path, err)
	}
	if size == 0 {
		return nil, nil
	}
	return area[:size:size], nil
}

// eventsSize walks the log, TCG PC Client Platform Firmware Profile section 10.2, up
// to the first eight bytes of 0xFF or of zero where an event would start.
func eventsSize(area []byte) (int, error) {
	c := cursor{rest: area}
	for first := true; ; first = false {
		if len(c.rest) == 0 || bytes.HasPrefix(c.rest, logEndMark) || bytes.HasPrefix(c.rest, make([]byte, 8)) {
			return len(area) - len(c.rest), nil
		}
		at := len(area) - len(c.rest)
		_, kind := c.u32(), c.u32() // register, event type
		if first && kind == evNoAction {
			c.skip(20) // the header event has the old form with one SHA-1 digest
		} else {
			for range c.u32() {
				if c.skip(digestSize(c.u16())); c.bad {
					break
				}
			}
		}
		if c.skip(uint64(c.u32())); c.bad {
			return 0, fmt.Errorf("malformed event at byte %d", at)
		}
	}
}

const evNoAction = 3

// digestSize returns the digest length of a TCG algorithm id, or more than any log has.
func digestSize(algorithm uint16) uint64 {
	switch algorithm {
	case 0x04: // SHA-1
		return 20
	case 0x0B, 0x12: // SHA-256, SM3
		return 32
	case 0x0C: // SHA-384
		return 48
	case 0x0D: // SHA-512
		return 64
	}
	return 1 << 32
}

// cursor reads little-endian numbers; bad sticks once it ran over the end.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) skip(n uint64) []byte {
	if c.bad || n > uint64(len(c.rest)) {
		c.bad = true
		return nil
	}
	out := c.rest[:n]
	c.rest = c.rest[n:]
	return out
}

func (c *cursor) u32() uint32 {
	if b := c.skip(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.skip(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}
