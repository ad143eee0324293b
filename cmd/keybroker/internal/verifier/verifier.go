// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// Config says what a Verifier trusts besides the roots of AMD and Intel.
type Config struct {
	// SNPTestRoots is PEM: an ARK and, if the evidence does not bring them, the ASK and
	// ASVK below it. Trusted only for registrations with test_roots. Nil for none.
	SNPTestRoots []byte
	// TDXTestRoot is PEM: a root to trust in place of Intel's, only for registrations with
	// test_roots. Nil for none.
	TDXTestRoot []byte
	// Collateral is a directory with vcek/HWID/*.der, vlek/LINE.pem and crl/*.crl, "" for none.
	Collateral string
	// KDS is the address of AMD's Key Distribution Service, AMDKDS or a mirror of it; ""
	// asks nobody. What it sends is kept in Collateral, which must be given then.
	KDS string
}

// Verifier judges evidence. It is safe for concurrent use.
type Verifier struct {
	snp snpVerifier
	tdx tdxVerifier
}

// New loads the roots and checks c.
func New(c Config) (*Verifier, error) {
	snp, err := newSNPVerifier(c)
	if err != nil {
		return nil, err
	}
	tdx, err := newTDXVerifier(c, snp.collateral)
	if err != nil {
		return nil, err
	}
	return &Verifier{snp: snp, tdx: tdx}, nil
}

// Input is what is judged and by what.
type Input struct {
	TEE      evidence.TEE
	Evidence json.RawMessage
	// ReportData is what the handshake binds the evidence to.
	ReportData evidence.ReportData
	// Devices are the parts of devices beside the TEE, and DeviceData is what they are
	// bound to. The report binds the parts themselves through ReportData.
	Devices    []evidence.DeviceEvidence
	DeviceData evidence.ReportData
	// InitData is the digest of the initdata document that came along.
	InitData Digest
	// Debug says that the initdata is a debug guest's. A debug guest attests with no other.
	Debug bool
	// Registration is what the guest claims to be.
	Registration owner.Registration
	Now          time.Time
}

// Digest is a digest with its algorithm. The zero value is no digest.
type Digest struct {
	Algorithm evidence.HashAlgorithm
	Sum       []byte
}

// String returns ALGORITHM:HEX as in a registration, "" for no digest.
func (d Digest) String() string {
	if len(d.Sum) == 0 {
		return ""
	}
	return fmt.Sprintf("%s:%x", d.Algorithm, d.Sum)
}

// Supports reports whether there is a verifier for tee.
func Supports(tee evidence.TEE) bool {
	switch tee {
	case evidence.SNP, evidence.TDX, evidence.AzSNPvTPM, evidence.AzTDXvTPM, evidence.TPM, evidence.Sample:
		return true
	}
	return false
}

// debugGuest reports whether the initdata or the values to match are a debug image's.
func (in Input) debugGuest() bool { return in.Debug || in.Registration.DebugValues(in.TEE) }

// Verify judges in. It never panics on hostile evidence and always says why it denies.
func (v *Verifier) Verify(in Input) Verdict {
	var verdict Verdict
	switch in.TEE {
	case evidence.SNP:
		verdict = v.snp.judge(in, snpChecks())
	case evidence.TDX:
		verdict = v.tdx.judge(in, tdxChecks())
	case evidence.AzSNPvTPM, evidence.AzTDXvTPM:
		verdict = v.judgeAzure(in, azureChecks(in.TEE))
	case evidence.TPM:
		verdict = judgeTPM(in, tpmChecks())
	case evidence.Sample:
		verdict = verifySample(in)
	default:
		return Verdict{Facts: Facts{TEE: in.TEE}, Findings: []Finding{{
			Rule: "verifier", Wanted: "a TEE with a verifier: snp, tdx, az-snp-vtpm, az-tdx-vtpm, tpm, sample", Found: string(in.TEE),
		}}}
	}
	verdict.Facts.Debug = in.debugGuest()
	judgeDevices(in, deviceTables(), &verdict)
	if verdict.complete {
		verdict.Findings = append(verdict.Findings, Recheck(verdict.Facts, in.Registration)...)
	}
	return verdict
}
