// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/json"
	"fmt"
)

// MaxSampleEvidenceSize is ample for the two short members.
const MaxSampleEvidenceSize = 1 << 10

// SampleEvidence is what the sample TEE claims. It proves nothing.
type SampleEvidence struct {
	SVN        string
	ReportData []byte // unpadded, at most ReportDataSize bytes
}

// Encode returns the wire form.
func (e SampleEvidence) Encode() (json.RawMessage, error) {
	out, err := appendText([]byte(`{"svn":`), e.SVN)
	if err != nil {
		return nil, fmt.Errorf("encoding sample evidence: %w", err)
	}
	return fmt.Appendf(out, `,"report_data":"%s"}`, encodeB64Std(e.ReportData)), nil
}

// ParseSampleEvidence reads it back.
func ParseSampleEvidence(raw []byte) (SampleEvidence, error) {
	r := readObject("sample evidence", raw, MaxSampleEvidenceSize)
	svn, data := r.text("svn"), r.text("report_data")
	if err := r.done(); err != nil {
		return SampleEvidence{}, err
	}
	b, err := decodeB64Std(data)
	if err != nil {
		return SampleEvidence{}, fmt.Errorf("parsing sample evidence: member %q: %w", "report_data", err)
	}
	if len(b) > ReportDataSize {
		return SampleEvidence{}, fmt.Errorf("parsing sample evidence: report data is %d bytes, at most %d allowed", len(b), ReportDataSize)
	}
	return SampleEvidence{SVN: svn, ReportData: b}, nil
}
