// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// maxCertificates bounds the certificates of one text: a chain has two or three.
	maxCertificates = 16
	// maxCertificateText bounds them as PEM.
	maxCertificateText = 64 << 10
	// maxCertificate bounds one as DER.
	maxCertificate = 16 << 10
)

// authority is what fulcio and pki say about the certificate of a signer.
type authority struct {
	roots         []*x509.Certificate
	intermediates []*x509.Certificate
	issuer        string // of fulcio: who proved the identity to it
	email         string // "" for none; compared as it is written
	hostname      string // "" for none; compared as it is written, wildcards too
}

func (a *authority) clone() *authority {
	c := *a
	c.roots, c.intermediates = slices.Clone(a.roots), slices.Clone(a.intermediates)
	return &c
}

// add takes the CA certificates of a PEM text.
func (a *authority) add(as role, text []byte) error {
	list, err := parseCertificates(text)
	if err != nil {
		return err
	}
	for i, c := range list {
		if !c.BasicConstraintsValid || !c.IsCA {
			return fmt.Errorf("certificate %d is not one of a CA", i)
		}
	}
	if as == roleIntermediate {
		a.intermediates = append(a.intermediates, list...)
	} else {
		a.roots = append(a.roots, list...)
	}
	return nil
}

// parseCertificates reads a PEM text of CERTIFICATE blocks alone, one at least.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	if len(text) > maxCertificateText {
		return nil, fmt.Errorf("certificates of %d bytes, at most %d", len(text), maxCertificateText)
	}
	var list []*x509.Certificate
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN")) {
			return nil, errors.New("certificates are not PEM")
		}
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("certificates are not PEM")
		}
		if block.Type != blockCertificate {
			return nil, fmt.Errorf("PEM block is %q, want %s", block.Type, blockCertificate)
		}
		if len(list) == maxCertificates {
			return nil, fmt.Errorf("more than %d certificates", maxCertificates)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing certificate %d: %w", len(list), err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, errors.New("no certificate")
	}
	return list, nil
}

// signerKey returns the key of a certificate that is good at a time: issued below the roots for signing code, and for the
// wanted identity. chain may help to find the way to a root and is not trusted.
func (a *authority) signerKey(leaf *x509.Certificate, chain []*x509.Certificate, at time.Time) (publicKey, error) {
	options := x509.VerifyOptions{
		Roots:         x509.NewCertPool(), // empty, it accepts none; nil would be the system's
		Intermediates: x509.NewCertPool(),
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	for _, c := range a.roots {
		options.Roots.AddCert(c)
	}
	for _, c := range slices.Concat(a.intermediates, chain) {
		options.Intermediates.AddCert(c)
	}
	// Verify takes a certificate without usages as good for all.
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageCodeSigning) || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return publicKey{}, errors.New("certificate is not for signing code")
	}
	if leaf.IsCA {
		return publicKey{}, errors.New("certificate is one of a CA, not of a signer")
	}
	if _, err := leaf.Verify(options); err != nil {
		return publicKey{}, fmt.Errorf("certificate at %s: %w", at.UTC().Format(time.RFC3339), err)
	}
	if err := a.identifies(leaf); err != nil {
		return publicKey{}, err
	}
	return acceptKey(leaf.PublicKey, leaf.RawSubjectPublicKeyInfo)
}

// identifies says whether the certificate names the wanted signer.
func (a *authority) identifies(leaf *x509.Certificate) error {
	if a.issuer != "" {
		got, err := oidcIssuer(leaf)
		if err != nil {
			return err
		}
		if got != a.issuer {
			return fmt.Errorf("certificate by identity provider %.200q, want %q", got, a.issuer)
		}
	}
	if a.email != "" && !slices.Contains(leaf.EmailAddresses, a.email) {
		return fmt.Errorf("certificate of %.200q, want %q", leaf.EmailAddresses, a.email)
	}
	if a.hostname != "" && !slices.Contains(leaf.DNSNames, a.hostname) {
		return fmt.Errorf("certificate of %.200q, want %q", leaf.DNSNames, a.hostname)
	}
	return nil
}

// oidcIssuer reads the identity provider from Fulcio's extensions: 1.3.6.1.4.1.57264.1.8, a UTF8String, and the older
// 1.3.6.1.4.1.57264.1.1, the bare text. Where both are there they must agree; x509 refuses one that is there twice.
func oidcIssuer(leaf *x509.Certificate) (string, error) {
	older, newer := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 1}, asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, 8}
	var found []string
	for _, e := range leaf.Extensions {
		switch {
		case e.Id.Equal(older):
			found = append(found, string(e.Value))
		case e.Id.Equal(newer):
			var text string
			rest, err := asn1.UnmarshalWithParams(e.Value, &text, "utf8")
			if err != nil || len(rest) > 0 {
				return "", errors.New("certificate's identity provider is no UTF8String")
			}
			found = append(found, text)
		}
	}
	if len(found) == 0 {
		return "", errors.New("certificate names no identity provider")
	}
	if len(found) > 1 && found[0] != found[1] {
		return "", fmt.Errorf("certificate names two identity providers, %.200q", found)
	}
	return found[0], nil
}

// describe says in words what certificate it accepts.
func (a *authority) describe() string {
	subject := a.email
	if subject == "" {
		subject = a.hostname
	} else if a.hostname != "" {
		subject += " and " + a.hostname
	}
	if a.issuer != "" {
		return fmt.Sprintf("a Fulcio certificate of %s by %s", subject, a.issuer)
	}
	return "a certificate of " + subject
}
