// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto"
	"fmt"
)

// TPMLogEvent is an event of a TPM's log that was extended into a register.
type TPMLogEvent struct {
	// Type is the event's type, TCG PC Client Platform Firmware Profile, 10.4.1.
	Type uint32

	// Digest is what one bank was extended with.
	Digest []byte

	// Data is the event's data, which nothing binds to the digest but its type's own rule.
	Data []byte
}

// TPMLogEvents returns the events of one register in a crypto-agile log (TCG PC Client
// Platform Firmware Profile section 10.2) with their digests in the bank of h, SHA-256 or SHA-384. One without
// exactly one such digest is an error, and so is a TPM that was started at another locality than 0, whose register
// 0 does not begin with zeros.
func TPMLogEvents(raw []byte, register uint32, h crypto.Hash) ([]TPMLogEvent, error) {
	events, err := tpmLogEvents(raw, register, h)
	if err != nil {
		return nil, fmt.Errorf("reading event log: %w", err)
	}
	return events, nil
}

func tpmLogEvents(raw []byte, register uint32, h crypto.Hash) ([]TPMLogEvent, error) {
	algorithm, ok := map[crypto.Hash]uint16{crypto.SHA256: tpmAlgSHA256, crypto.SHA384: algSHA384}[h]
	if !ok {
		return nil, fmt.Errorf("bank of %v, want SHA-256 or SHA-384", h)
	}
	c, err := openLog(raw)
	if err != nil {
		return nil, err
	}
	var events []TPMLogEvent
	for n := 1; c.err == nil && !logEnds(c.rest); n++ {
		e := c.event(algorithm)
		switch {
		case c.err != nil:
			return nil, fmt.Errorf("event %d: %w", n, c.err)
		case e.kind == eventNoAction:
			if e.index == 0 && bytes.HasPrefix(e.data, startupLocality) && !bytes.Equal(e.data[len(startupLocality):], []byte{0}) {
				return nil, fmt.Errorf("event %d: start-up locality %x, want 0", n, e.data[len(startupLocality):])
			}
		case e.index != register:
		case e.digest == nil:
			return nil, fmt.Errorf("event %d: no %v digest", n, h)
		default:
			events = append(events, TPMLogEvent{Type: e.kind, Digest: e.digest, Data: e.data})
		}
	}
	return events, c.err
}
