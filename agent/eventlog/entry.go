// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"bytes"
	"crypto"
	_ "crypto/sha256" // for algorithms
	_ "crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// MaxText bounds domain, operation and content together, with two spaces.
const MaxText = 16 << 10

const (
	kindMeasured = 6 // EV_EVENT_TAG
	kindUnbound  = 3 // EV_NO_ACTION: says something, measures nothing

	magicAAEL = 0x4141454C // the event's tag; its bytes read "LEAA"
	headSize  = 4 + 4 + 4 + 2
)

// algorithms are TPM_ALG_ID of TCG's Algorithm Registry.
var algorithms = map[crypto.Hash]uint16{crypto.SHA256: 0x0B, crypto.SHA384: 0x0C}

// Entry is one thing that happened.
type Entry struct {
	// Domain says who vouches for the entry, Operation what was done: printable ASCII
	// without spaces, at least one byte.
	Domain, Operation string
	// Content is everything behind, without line breaks.
	Content string
}

// Check refuses what would read as something else than it says.
func (e Entry) Check() error {
	for _, w := range []struct{ what, text string }{{"domain", e.Domain}, {"operation", e.Operation}} {
		if w.text == "" || strings.ContainsFunc(w.text, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return fmt.Errorf("%s %.64q of an event-log entry: want printable ASCII without spaces", w.what, w.text)
		}
	}
	if strings.ContainsAny(e.Content, "\r\n\x00") {
		return errors.New("content of an event-log entry holds a line break or a zero byte")
	}
	if n := len(e.text()); n > MaxText {
		return fmt.Errorf("event-log entry of %d bytes, want at most %d", n, MaxText)
	}
	return nil
}

func (e Entry) text() string { return e.Domain + " " + e.Operation + " " + e.Content }

// event is what is hashed: tag, length, text.
func event(text string) []byte {
	out := binary.LittleEndian.AppendUint32(nil, magicAAEL)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(text)))
	return append(out, text...)
}

func sum(h crypto.Hash, parts ...[]byte) []byte {
	w := h.New()
	for _, p := range parts {
		w.Write(p)
	}
	return w.Sum(nil)
}

// digestOf is what an entry extends its register by.
func digestOf(h crypto.Hash, text string) []byte { return sum(h, event(text)) }

// encode writes a TCG_PCR_EVENT2 of one digest; an unbound one has zeros for it.
func encode(number uint32, h crypto.Hash, text string, bound bool) []byte {
	kind, digest := uint32(kindMeasured), digestOf(h, text)
	if !bound {
		kind, digest = kindUnbound, make([]byte, h.Size())
	}
	le := binary.LittleEndian
	out := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, number), kind), 1)
	out = append(le.AppendUint16(out, algorithms[h]), digest...)
	e := event(text)
	return append(le.AppendUint32(out, uint32(len(e))), e...)
}

// record is an entry as the log holds it.
type record struct {
	text  string
	bound bool
	size  int
}

// errCut says that the log ends inside an entry.
var errCut = errors.New("the log ends inside an entry")

// decode reads the first entry of raw, which must be one that encode would write for
// this register.
func decode(raw []byte, number uint32, h crypto.Hash) (record, error) {
	fixed := headSize + h.Size() + 4
	if len(raw) < fixed {
		return record{}, errCut
	}
	size := int64(binary.LittleEndian.Uint32(raw[fixed-4:]))
	if size < 8 || size > 8+MaxText {
		return record{}, fmt.Errorf("event of %d bytes, want 8 to %d", size, 8+MaxText)
	}
	whole := fixed + int(size)
	if len(raw) < whole {
		return record{}, errCut
	}
	r := record{text: string(raw[fixed+8 : whole]), bound: binary.LittleEndian.Uint32(raw[4:]) == kindMeasured, size: whole}
	if !bytes.Equal(raw[:whole], encode(number, h, r.text, r.bound)) {
		return record{}, errors.New("an entry is not of this log's form, or its digest is not of its text")
	}
	return r, nil
}

// decodeAll reads a log. At errCut the records before the cut are returned with it.
func decodeAll(raw []byte, number uint32, h crypto.Hash) ([]record, error) {
	var all []record
	for len(raw) > 0 {
		r, err := decode(raw, number, h)
		if err != nil {
			return all, fmt.Errorf("entry %d: %w", len(all)+1, err)
		}
		all, raw = append(all, r), raw[r.size:]
	}
	return all, nil
}
