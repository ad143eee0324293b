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
type sampleAttester struct {
	tee evidence.TEE // Sample, or SampleDevice beside another
	svn string
}

func newSample(cfg Config) (Attester, error) {
	cfg.Log.Warn("SAMPLE TEE: this guest proves nothing, for tests only")
	return sampleAttester{evidence.Sample, "1"}, nil
}

func newSampleDevice(cfg Config) (Attester, error) {
	cfg.Log.Warn("SAMPLE DEVICE: it proves nothing, for tests only")
	return sampleAttester{evidence.SampleDevice, "2"}, nil
}

func (a sampleAttester) TEE() evidence.TEE { return a.tee }

func (a sampleAttester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if r.IsZero() {
		return nil, fmt.Errorf("making sample evidence: %w", errNoReportData)
	}
	return evidence.SampleEvidence{SVN: a.svn, ReportData: r.Digest()}.Encode()
}
