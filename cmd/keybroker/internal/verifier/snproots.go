// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/google/go-sev-guest/verify/trust"

	"github.com/casemate/casemate/cmd/internal/owner"
)

// MaxTestRoots bounds the PEM of test roots: three certificates take 6 KiB.
const MaxTestRoots = 64 << 10

// root is an ARK with the intermediates that came with it: ASKs certify VCEKs, ASVKs
// certify VLEKs.
type root struct {
	ark           *x509.Certificate
	intermediates []*x509.Certificate
	test          bool
}

// amdRoots returns AMD's roots by product line.
func amdRoots() (map[string]*root, error) {
	roots := make(map[string]*root)
	for _, bundle := range []struct {
		line string
		pems [][]byte
	}{
		{owner.Milan, [][]byte{trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes}},
		{owner.Genoa, [][]byte{trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes}},
		{owner.Turin, [][]byte{trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes}},
	} {
		r, err := parseRoot(bytes.Join(bundle.pems, []byte("\n")))
		if err != nil {
			return nil, fmt.Errorf("loading AMD's roots for %s: %w", bundle.line, err)
		}
		roots[bundle.line] = r
	}
	return roots, nil
}

// parseRoot reads one self-signed certificate, which may occur again, and the
// intermediates that it signed.
func parseRoot(text []byte) (*root, error) {
	certs, err := parsePEM(text)
	if err != nil {
		return nil, err
	}
	r := &root{}
	for _, c := range certs {
		selfSigned := bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignatureFrom(c) == nil
		switch {
		case selfSigned && (r.ark == nil || r.ark.Equal(c)):
			r.ark = c
		case selfSigned:
			return nil, errors.New("two self-signed certificates")
		default:
			r.intermediates = append(r.intermediates, c)
		}
	}
	if r.ark == nil {
		return nil, errors.New("no self-signed certificate")
	}
	for _, c := range r.intermediates {
		if err := signedBy(c, r.ark); err != nil {
			return nil, fmt.Errorf("intermediate %q: %w", c.Subject.CommonName, err)
		}
	}
	return r, nil
}

func parsePEM(text []byte) ([]*x509.Certificate, error) {
	if len(text) > MaxTestRoots {
		return nil, fmt.Errorf("%d bytes of certificates, at most %d allowed", len(text), MaxTestRoots)
	}
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block is %q, want CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate: %w", err)
		}
		certs, text = append(certs, c), rest
	}
	if len(bytes.TrimSpace(text)) != 0 {
		return nil, errors.New("text that is not PEM behind the certificates")
	}
	return certs, nil
}

// signedBy checks name and signature, and that parent may certify at all. Dates are a
// rule of their own.
func signedBy(c, parent *x509.Certificate) error {
	if !bytes.Equal(c.RawIssuer, parent.RawSubject) {
		return fmt.Errorf("issuer is %q, not %q", c.Issuer.CommonName, parent.Subject.CommonName)
	}
	return c.CheckSignatureFrom(parent)
}
