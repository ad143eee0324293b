// SPDX-License-Identifier: Apache-2.0

package snptest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/google/go-sev-guest/kds"
	sgtest "github.com/google/go-sev-guest/testing"

	"github.com/casemate/casemate/agent/attest/snptest/chip"
	"github.com/casemate/casemate/agent/evidence"
)

// A signer is the chip's own half, which needs no key material but what it was saved with.
type (
	Params = chip.Params
	TCB    = chip.TCB
	Signer = chip.Signer
)

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
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("building a test signer: %w", err)
	}
	_, _, product, err := p.CPU()
	if err != nil {
		return nil, fmt.Errorf("building a test signer: %w", err)
	}
	extensions, err := extensions(p, product)
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
	return chip.New(p, chain.Ark, chain.Ask, chain.Vcek, keys.Vcek), nil
}

// extensions are those of AMD publication 57230, "VCEK Certificate and KDS Interface
// Specification", for the reported TCB and the chip.
func extensions(p Params, product string) ([]pkix.Extension, error) {
	hwid, err := p.HardwareID()
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

// Create writes a directory for a new signer with fresh keys. It refuses a directory
// that has one already.
func Create(dir string, p Params) (*Signer, error) {
	s, err := NewWithFreshKeys(p)
	if err != nil {
		return nil, err
	}
	return s, s.Save(dir)
}

// Load reads a directory: see chip.Load.
func Load(dir string) (*Signer, error) { return chip.Load(dir) }
