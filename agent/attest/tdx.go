// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/casemate/casemate/agent/evidence"
)

const tdxProvider = "tdx_guest"

// Layout of a TD quote, Intel TDX DCAP Quoting Library API, appendix "Quote Format":
// a header of 48 bytes, in version 5 a body type and size, then the TD report body.
const (
	quoteHeaderSize = 48
	quoteBodyHead   = 2 + 4
	teeTypeTDX      = 0x81

	bodyMRConfigID = 184
	bodyReportData = 520
	bodySize10     = 584 // TDX 1.0
	bodySize15     = 648 // TDX 1.5, more fields behind the same first 584 bytes
	mrConfigIDSize = 48
)

// tdxAttester is an Intel TDX guest.
type tdxAttester struct {
	tsm      configfsi.Client
	eventLog string
	runtime  RuntimeLog
	log      *slog.Logger
}

func (*tdxAttester) TEE() evidence.TEE { return evidence.TDX }

func (a *tdxAttester) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if r.IsZero() {
		return nil, fmt.Errorf("making TDX evidence: %w", errNoReportData)
	}
	var e evidence.TDXEvidence
	take := func(entries []byte) (err error) {
		if e.Quote, _, err = a.quote(ctx, r.Bytes64()); err != nil {
			return err
		}
		e.EventLog, err = readEventLog(a.eventLog, entries)
		return err
	}
	var err error
	if a.runtime == nil {
		err = take(nil)
	} else {
		err = a.runtime.Hold(take)
	}
	if err != nil {
		return nil, fmt.Errorf("making TDX evidence: %w", err)
	}
	if e.EventLog == nil {
		a.log.Info("TDX evidence without an event log", "path", a.eventLog)
	}
	return e.Encode()
}

// BoundInitData returns the 48 bytes of MRCONFIGID.
func (a *tdxAttester) BoundInitData(ctx context.Context) ([]byte, error) {
	_, body, err := a.quote(ctx, freshData())
	if err != nil {
		return nil, fmt.Errorf("reading MRCONFIGID: %w", err)
	}
	return bytes.Clone(body[bodyMRConfigID:][:mrConfigIDSize]), nil
}

// quote returns a quote and the TD report body inside it.
func (a *tdxAttester) quote(ctx context.Context, data [evidence.ReportDataSize]byte) (quote, body []byte, err error) {
	resp, err := getReport(ctx, a.tsm, tdxProvider, data)
	if err != nil {
		return nil, nil, err
	}
	if len(resp.OutBlob) > evidence.MaxTDXQuoteSize {
		return nil, nil, fmt.Errorf("quote is %d bytes, at most %d allowed", len(resp.OutBlob), evidence.MaxTDXQuoteSize)
	}
	body, err = quoteBody(resp.OutBlob)
	if err != nil {
		return nil, nil, err
	}
	// The quote comes through the host; a stale one would be refused only far away.
	if !bytes.Equal(body[bodyReportData:][:evidence.ReportDataSize], data[:]) {
		return nil, nil, errors.New("the quote is bound to other data than asked for")
	}
	return resp.OutBlob, body, nil
}

// quoteBody returns the first 584 bytes of the TD report body of a version 4 or 5
// quote.
func quoteBody(quote []byte) ([]byte, error) {
	if len(quote) < quoteHeaderSize+quoteBodyHead+bodySize15 {
		return nil, fmt.Errorf("quote is %d bytes, want at least %d", len(quote), quoteHeaderSize+quoteBodyHead+bodySize15)
	}
	if tee := binary.LittleEndian.Uint32(quote[4:]); tee != teeTypeTDX {
		return nil, fmt.Errorf("quote is for TEE type %#x, want %#x", tee, teeTypeTDX)
	}
	switch version := binary.LittleEndian.Uint16(quote); version {
	case 4:
		return quote[quoteHeaderSize:][:bodySize10], nil
	case 5:
		size := binary.LittleEndian.Uint32(quote[quoteHeaderSize+2:])
		if size != bodySize10 && size != bodySize15 {
			return nil, fmt.Errorf("quote body is %d bytes, want %d or %d", size, bodySize10, bodySize15)
		}
		return quote[quoteHeaderSize+quoteBodyHead:][:bodySize10], nil
	default:
		return nil, fmt.Errorf("quote version is %d, want 4 or 5", version)
	}
}
