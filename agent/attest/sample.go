// SPDX-License-Identifier: Apache-2.0

//go:build sample

package attest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
)

// sampleAttester claims a TEE that does not exist. Its evidence proves nothing.
type sampleAttester struct{}

func newSample(cfg Config) (Attester, error) {
	cfg.Log.Warn("SAMPLE TEE: this guest proves nothing, for tests only")
	return sampleAttester{}, nil
}

func (sampleAttester) TEE() evidence.TEE { return evidence.Sample }

func (sampleAttester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if r.IsZero() {
		return nil, fmt.Errorf("making sample evidence: %w", errNoReportData)
	}
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}
