// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"time"
)

// attached is a signature taken apart, whichever form it came in. Nothing of it is verified.
type attached struct {
	statement   bool   // the payload is an in-toto statement, not a simple signing document
	payload     []byte // what is said
	message     []byte // what the signature is over: the payload, or the DSSE encoding around it
	signature   []byte
	certificate *x509.Certificate   // of the signer; nil is none
	chain       []*x509.Certificate // of its issuers
	entries     []*logEntry
}

// openSignature reads either form; of what stands beside a signature only that for which r asks.
func openSignature(s Signature, r *requirement) (*attached, error) {
	if s.Bundle != nil {
		return parseBundle(s.Bundle)
	}
	if len(s.Payload) > maxPayload || len(s.Base64Signature) > maxSignature {
		return nil, fmt.Errorf("payload of %d and signature of %d bytes, at most %d and %d", len(s.Payload), len(s.Base64Signature),
			maxPayload, maxSignature)
	}
	raw, err := base64.StdEncoding.DecodeString(s.Base64Signature) // passes over line ends
	if err != nil {
		return nil, errors.New("signature is not base64")
	}
	a := &attached{payload: s.Payload, message: s.Payload, signature: raw}
	if s.Certificate != "" && r.authority != nil {
		list, err := parseCertificates([]byte(s.Certificate))
		if err != nil {
			return nil, err
		}
		if len(list) != 1 {
			return nil, fmt.Errorf("%d certificates of the signer, want 1", len(list))
		}
		a.certificate = list[0]
	}
	if s.Chain != "" && r.authority != nil {
		if a.chain, err = parseCertificates([]byte(s.Chain)); err != nil {
			return nil, fmt.Errorf("issuers: %w", err)
		}
	}
	if s.RekorBundle != "" && len(r.rekor) > 0 {
		e, err := parseRekorBundle([]byte(s.RekorBundle))
		if err != nil {
			return nil, err
		}
		a.entries = []*logEntry{e}
	}
	return a, nil
}

// says reads the payload. It is called for bytes under a good signature.
func (a *attached) says() (payload, error) {
	if a.statement {
		return parseStatement(a.payload)
	}
	return parsePayload(a.payload, payloadType)
}

// authored says why a signature is not by an accepted signer and, where the requirement asks for a log, logged.
func (r *requirement) authored(a *attached) error {
	if r.authority != nil {
		return r.certified(a)
	}
	for _, k := range r.keys {
		if k.verify(a.message, a.signature) {
			if len(r.rekor) == 0 {
				return nil
			}
			return r.logged(a, blockKey, k.der, func(time.Time) error { return nil })
		}
	}
	return errors.New("not by an accepted key")
}

// certified is authored for a signer with a certificate, which must have been good when the signature was logged. The
// clock of this machine has no part in it.
func (r *requirement) certified(a *attached) error {
	if a.certificate == nil {
		return errors.New("without the signer's certificate")
	}
	return r.logged(a, blockCertificate, a.certificate.Raw, func(at time.Time) error {
		key, err := r.authority.signerKey(a.certificate, a.chain, at)
		if err != nil {
			return err
		}
		if !key.verify(a.message, a.signature) {
			return errors.New("not by the key of its certificate")
		}
		return nil
	})
}

// logged looks for an entry about this signature, by the key or certificate in der, in one of the accepted logs, at a time that
// is accepted.
func (r *requirement) logged(a *attached, blockType string, der []byte, accept func(time.Time) error) error {
	err := errors.New("without an entry of a log")
	for _, e := range a.entries {
		var at time.Time
		if at, err = e.logged(r.rekor); err != nil {
			continue
		}
		if err = e.about(a, blockType, der); err != nil {
			continue
		}
		if err = accept(at); err == nil {
			return nil
		}
	}
	return err
}
