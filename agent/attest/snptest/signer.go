// SPDX-License-Identifier: Apache-2.0

package snptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"time"

	"github.com/google/go-sev-guest/kds"
	sgtest "github.com/google/go-sev-guest/testing"

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

// New makes a signer from key material that go-sev-guest publishes, so it costs no key
// generation and its root is known to everybody: for unit tests.
func New(p Params) (*Signer, error) {
	return build(p, sgtest.DefaultAmdKeys())
}

// NewWithFreshKeys makes a signer whose root nobody else has. It takes about a second.
func NewWithFreshKeys(p Params) (*Signer, error) {
	keys := &sgtest.AmdKeys{}
	for _, k := range []**rsa.PrivateKey{&keys.Ark, &keys.Ask} {
		// AMD's own have 4096 bits, which would cost a small machine a minute here.
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("generating a CA key: %w", err)
		}
		*k = key
	}
	keys.Asvk = keys.Ask // the builder wants one; no VLEK is made
	vcek, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating a VCEK: %w", err)
	}
	keys.Vcek = vcek
	return build(p, keys)
}

func build(p Params, keys *sgtest.AmdKeys) (*Signer, error) {
	if _, err := p.unsigned([64]byte{}); err != nil {
		return nil, fmt.Errorf("building a test signer: %w", err)
	}
	_, _, product, err := p.cpu()
	if err != nil {
		return nil, fmt.Errorf("building a test signer: %w", err)
	}
	extensions, err := p.extensions(product)
	if err != nil {
		return nil, fmt.Errorf("building a test signer: %w", err)
	}
	since := time.Now().Add(-24 * time.Hour)
	b := &sgtest.AmdSignerBuilder{
		Keys: keys, ProductName: product,
		ArkCreationTime: since, AskCreationTime: since, AsvkCreationTime: since,
		VcekCreationTime: since, VlekCreationTime: since,
		VcekCustom: sgtest.CertOverride{Extensions: extensions},
	}
	chain, err := b.TestOnlyCertChain()
	if err != nil {
		return nil, fmt.Errorf("building a test signer: %w", err)
	}
	return &Signer{Params: p, ARK: chain.Ark, ASK: chain.Ask, VCEK: chain.Vcek, key: keys.Vcek}, nil
}

// extensions are those of AMD publication 57230, "VCEK Certificate and KDS Interface
// Specification", for the reported TCB and the chip.
func (p Params) extensions(product string) ([]pkix.Extension, error) {
	hwid, err := p.hwid()
	if err != nil {
		return nil, err
	}
	parts := kds.TCBParts{BlSpl: p.TCB.Bootloader, TeeSpl: p.TCB.TEE, SnpSpl: p.TCB.SNP, UcodeSpl: p.TCB.Microcode}
	out := sgtest.CustomExtensions(parts, hwid, "", product)
	if p.Product == string(evidence.Turin) {
		fmc, err := asn1.Marshal(int(p.TCB.FMC))
		if err != nil {
			return nil, fmt.Errorf("encoding the FMC extension: %w", err)
		}
		out = append(out, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1, 3, 9}, Value: fmc})
	}
	return out, nil
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
