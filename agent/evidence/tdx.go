// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// MaxTDXQuoteSize is eight times a version 4 quote with its PCK chain.
	MaxTDXQuoteSize = 64 << 10

	// MaxEventLogSize is sixteen times the 64 KiB that firmware reserves for a CCEL.
	MaxEventLogSize = 1 << 20
)

// TDXEvidence is a quote and the event log of the confidential computing firmware.
type TDXEvidence struct {
	Quote    []byte // 1 to MaxTDXQuoteSize bytes, not parsed
	EventLog []byte // the CCEL; nil when there is none
}

// Encode returns the JSON evidence that Trustee's tdx verifier reads.
func (e TDXEvidence) Encode() (json.RawMessage, error) {
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("encoding TDX evidence: %w", err)
	}
	log := "null"
	if e.EventLog != nil {
		log = `"` + encodeB64Std(e.EventLog) + `"`
	}
	return fmt.Appendf(nil, `{"cc_eventlog":%s,"quote":"%s"}`, log, encodeB64Std(e.Quote)), nil
}

func (e TDXEvidence) check() error {
	if len(e.Quote) == 0 || len(e.Quote) > MaxTDXQuoteSize {
		return fmt.Errorf("quote is %d bytes, want 1 to %d", len(e.Quote), MaxTDXQuoteSize)
	}
	if e.EventLog != nil && len(e.EventLog) == 0 {
		return errors.New("event log is empty")
	}
	if len(e.EventLog) > MaxEventLogSize {
		return fmt.Errorf("event log is %d bytes, at most %d allowed", len(e.EventLog), MaxEventLogSize)
	}
	return nil
}

// ParseTDXEvidence reads it back. Neither part is looked into.
func ParseTDXEvidence(raw []byte) (TDXEvidence, error) {
	r := readObject("TDX evidence", raw, MaxAttestationSize)
	quoteText := r.text("quote")
	logValue, hasLog := r.takeOptional("cc_eventlog")
	if err := r.done(); err != nil {
		return TDXEvidence{}, err
	}
	var e TDXEvidence
	var err error
	if e.Quote, err = decodeB64Std(quoteText); err != nil {
		return TDXEvidence{}, fmt.Errorf("parsing TDX evidence: member %q: %w", "quote", err)
	}
	if hasLog {
		var text string
		if text, err = textOf(logValue); err == nil {
			e.EventLog, err = decodeB64Std(text)
		}
		if err != nil {
			return TDXEvidence{}, fmt.Errorf("parsing TDX evidence: member %q: %w", "cc_eventlog", err)
		}
	}
	if err := e.check(); err != nil {
		return TDXEvidence{}, fmt.Errorf("parsing TDX evidence: %w", err)
	}
	return e, nil
}
