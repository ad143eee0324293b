// SPDX-License-Identifier: Apache-2.0

//go:build testsnp

package attest

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/casemate/casemate/agent/attest/snptest/chip"
	"github.com/casemate/casemate/agent/evidence"
)

// testSNPAttester signs reports with a key from a directory where the hardware's
// would be. A relying party accepts them only when it was told to trust that root.
type testSNPAttester struct {
	signer *chip.Signer
}

func newTestSNP(cfg Config) (Attester, error) {
	signer, err := chip.Load(cfg.TestSignerDir)
	if err != nil {
		return nil, fmt.Errorf("loading the SNP test signer: %w", err)
	}
	cfg.Log.Warn("TEST SIGNER: this guest signs its own SNP reports and proves nothing, for tests only", "dir", cfg.TestSignerDir)
	return &testSNPAttester{signer: signer}, nil
}

func (*testSNPAttester) TEE() evidence.TEE { return evidence.SNP }

func (a *testSNPAttester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	if r.IsZero() {
		return nil, fmt.Errorf("making SNP test evidence: %w", errNoReportData)
	}
	e, err := a.signer.Evidence(r.Bytes64())
	if err != nil {
		return nil, fmt.Errorf("making SNP test evidence: %w", err)
	}
	return e.Encode()
}

// BoundInitData returns the 32 bytes of HOST_DATA.
func (a *testSNPAttester) BoundInitData(context.Context) ([]byte, error) {
	e, err := a.signer.Evidence(freshData())
	if err != nil {
		return nil, fmt.Errorf("reading HOST_DATA: %w", err)
	}
	return e.Report.HostData(), nil
}
