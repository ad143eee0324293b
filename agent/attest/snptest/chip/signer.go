// SPDX-License-Identifier: Apache-2.0

package chip

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"

	"github.com/casemate/casemate/agent/evidence"
)

// Signer makes signed reports. It is safe for concurrent use while Params is left
// alone.
type Signer struct {
	Params Params
	// ARK, ASK and VCEK are the chain, self-signed root first.
	ARK, ASK, VCEK *x509.Certificate

	key *ecdsa.PrivateKey
}

// New makes a signer of a chain and the VCEK's private key.
func New(p Params, ark, ask, vcek *x509.Certificate, key *ecdsa.PrivateKey) *Signer {
	return &Signer{Params: p, ARK: ark, ASK: ask, VCEK: vcek, key: key}
}

// Report returns a raw signed report bound to data.
func (s *Signer) Report(data [64]byte) ([]byte, error) {
	raw, err := s.Params.unsigned(data)
	if err != nil {
		return nil, fmt.Errorf("making a test report: %w", err)
	}
	return raw, s.Sign(raw)
}

// Sign puts a valid signature into a raw report, whatever else the report says.
func (s *Signer) Sign(raw []byte) error {
	if len(raw) != evidence.SNPReportSize {
		return fmt.Errorf("signing a test report: got %d bytes, want %d", len(raw), evidence.SNPReportSize)
	}
	digest := sha512.Sum384(raw[:evidence.SNPSignedSize])
	r, t, err := ecdsa.Sign(rand.Reader, s.key, digest[:])
	if err != nil {
		return fmt.Errorf("signing a test report: %w", err)
	}
	for i, n := range []*big.Int{r, t} { // little-endian, 72 bytes each
		part := raw[evidence.SNPSignedSize+72*i:][:72]
		slices.Reverse(n.FillBytes(part))
	}
	return nil
}

// Evidence returns a signed report with the chain beside it.
func (s *Signer) Evidence(data [64]byte) (evidence.SNPEvidence, error) {
	raw, err := s.Report(data)
	if err != nil {
		return evidence.SNPEvidence{}, err
	}
	report, err := evidence.ParseSNPReport(raw)
	if err != nil {
		return evidence.SNPEvidence{}, fmt.Errorf("making a test report: %w", err)
	}
	return evidence.SNPEvidence{Report: report, Certs: []evidence.SNPCert{
		{Type: evidence.SNPCertVCEK, DER: s.VCEK.Raw},
		{Type: evidence.SNPCertASK, DER: s.ASK.Raw},
		{Type: evidence.SNPCertARK, DER: s.ARK.Raw},
	}}, nil
}
