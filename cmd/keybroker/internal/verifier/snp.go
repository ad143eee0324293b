// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"errors"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// snpVector is claimed only when every row passed: genuine hardware with firmware at
// its floor (2), boot image recognised (3), configuration recognised (2).
var snpVector = Vector{Hardware: 2, Executables: 3, Configuration: 2}

type snpVerifier struct {
	chains     *chains
	collateral *collateral
	floors     map[string]owner.TCB
	kds        *distribution // nil: AMD is not asked
}

func newSNPVerifier(c Config) (snpVerifier, error) {
	chains, err := newChains(c.SNPTestRoots)
	if err != nil {
		return snpVerifier{}, err
	}
	collateral, err := newCollateral(c.Collateral)
	if err != nil {
		return snpVerifier{}, err
	}
	v := snpVerifier{chains: chains, collateral: collateral, floors: floors()}
	if c.KDS != "" {
		if c.Collateral == "" {
			return snpVerifier{}, errors.New("AMD's KDS: want a collateral directory to keep what it sends")
		}
		if v.kds, err = newKDS(c.KDS); err != nil {
			return snpVerifier{}, err
		}
	}
	return v, nil
}

// snpCase is one report under judgement. The gates fill it in.
type snpCase struct {
	in     Input
	v      *snpVerifier
	ev     evidence.SNPEvidence
	report *evidence.SNPReport
	vek    vek
	chain  *chain
}

// snpChecks are the rules on SNP evidence. The table is what makes a verdict: a test
// switches each row off and sees that exactly its evidence is then let in.
func snpChecks() []check[*snpCase] {
	return []check[*snpCase]{
		{name: "format", gate: true, judge: checkFormat},
		{name: "report-version", judge: checkVersion},
		{name: "signature-algorithm", judge: checkAlgorithm},
		{name: "endorsement-key", gate: true, judge: checkVEK},
		{name: "signing-key", judge: checkSigningKey},
		{name: "chain", gate: true, judge: checkChain},
		{name: "validity", judge: checkValidity},
		{name: "revocation", judge: checkRevocation},
		{name: "signature", judge: checkSignature},
		{name: "tcb-certified", judge: checkCertifiedTCB},
		{name: "chip-certified", judge: checkCertifiedChip},
		{name: "vmpl", judge: checkVMPL},
		{name: "debug", judge: checkDebug},
		{name: "migration", judge: checkMigration},
		{name: "report-data", judge: checkReportData},
		{name: "host-data", judge: checkHostData},
		{name: "tcb-floor", judge: checkFloor},
	}
}

// fill tells what the report says, as far as it was read.
func (c *snpCase) fill(f *Facts) {
	if c.report != nil {
		f.Measurement = fmt.Sprintf("%x", c.report.Measurement())
		f.InitData = c.in.InitData.String()
		f.Product = productLine(c.report.Product())
		f.TCB = lowestTCB(c.report)
	}
	f.TestRoot = c.chain != nil && c.chain.root.test
}

func (v *snpVerifier) judge(in Input, checks []check[*snpCase]) Verdict {
	c := &snpCase{in: in, v: v}
	verdict := Verdict{Facts: Facts{TEE: evidence.SNP}}
	verdict.Findings, verdict.complete = run(checks, c)
	c.fill(&verdict.Facts)
	if verdict.complete && len(verdict.Failed()) == 0 {
		verdict.Vector = snpVector
		var err error
		verdict.Claims, err = snpClaims(c.report, in.InitData)
		verdict.complete = err == nil
	}
	return verdict
}
