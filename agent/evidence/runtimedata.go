// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"errors"
	"fmt"
)

const (
	// MaxNonceSize is far above the 44 characters that KBS servers send and bounds
	// what a lying server makes the guest hash and send back.
	MaxNonceSize = 1 << 10

	// MaxAdditionalEvidenceSize leaves room for the certificate chains of eight GPUs
	// under the 2 MiB that a KBS takes as a body.
	MaxAdditionalEvidenceSize = 1 << 20
)

// RuntimeData is what a handshake binds into the report: the nonce, the TEE key and
// the evidence of additional devices. Its canonical bytes are made once; the digest
// and the wire use these same bytes. The zero value is not valid.
type RuntimeData struct {
	nonce      string
	key        JWK
	additional string
	wire       []byte
	bound      []byte
}

// NewRuntimeData takes the nonce as the opaque text of the challenge and
// additionalEvidence as the exact string that the attestation will carry, "" for
// none. It refuses a nonce that is empty, too long or not UTF-8, and no key.
func NewRuntimeData(nonce string, key JWK, additionalEvidence string) (RuntimeData, error) {
	if nonce == "" {
		return RuntimeData{}, errors.New("runtime data: empty nonce")
	}
	if len(nonce) > MaxNonceSize {
		return RuntimeData{}, fmt.Errorf("runtime data: nonce is %d bytes, at most %d allowed", len(nonce), MaxNonceSize)
	}
	if len(additionalEvidence) > MaxAdditionalEvidenceSize {
		return RuntimeData{}, fmt.Errorf("runtime data: additional evidence is %d bytes, at most %d allowed",
			len(additionalEvidence), MaxAdditionalEvidenceSize)
	}
	if key.IsZero() {
		return RuntimeData{}, errors.New("runtime data: no TEE key")
	}
	d := RuntimeData{nonce: nonce, key: key, additional: additionalEvidence}
	tail, err := appendText([]byte(`"nonce":`), nonce)
	if err != nil {
		return RuntimeData{}, fmt.Errorf("runtime data: nonce: %w", err)
	}
	tail = append(tail, `,"tee-pubkey":`...)
	tail = append(tail, key.Canonical()...)
	tail = append(tail, '}')
	d.wire = append([]byte{'{'}, tail...)
	// The hashed key is spelled with a hyphen and is there even when it is empty,
	// unlike the additional_evidence member of the attestation.
	d.bound, err = appendText([]byte(`{"additional-evidence":`), additionalEvidence)
	if err != nil {
		return RuntimeData{}, fmt.Errorf("runtime data: additional evidence: %w", err)
	}
	d.bound = append(append(d.bound, ','), tail...)
	return d, nil
}

// parseRuntimeData reads the runtime-data member of an attestation.
func parseRuntimeData(raw []byte, additionalEvidence string) (RuntimeData, error) {
	r := readObject("runtime-data", raw, maxRuntimeDataWire)
	nonce := r.text("nonce")
	jwk := r.take("tee-pubkey")
	if err := r.done(); err != nil {
		return RuntimeData{}, err
	}
	key, err := ParseJWK(jwk)
	if err != nil {
		return RuntimeData{}, err
	}
	return NewRuntimeData(nonce, key, additionalEvidence)
}

// Nonce returns the nonce of the challenge.
func (d RuntimeData) Nonce() string { return d.nonce }

// TEEKey returns the public key that secrets are encrypted to.
func (d RuntimeData) TEEKey() JWK { return d.key }

// AdditionalEvidence returns the evidence of devices, "" when there is none.
func (d RuntimeData) AdditionalEvidence() string { return d.additional }

// Wire returns the canonical {"nonce","tee-pubkey"}. The caller must not change it.
func (d RuntimeData) Wire() []byte { return d.wire }

// Bound returns the canonical {"additional-evidence","nonce","tee-pubkey"}, the
// bytes whose digest the primary report carries. The caller must not change it.
func (d RuntimeData) Bound() []byte { return d.bound }

// ReportData returns what the report of the primary TEE is bound to.
func (d RuntimeData) ReportData(h HashAlgorithm) (ReportData, error) {
	return bind(h, d.bound)
}

// DeviceReportData returns what the reports of additional devices are bound to: they
// are made before the additional evidence exists, so it is not in their digest.
func (d RuntimeData) DeviceReportData(h HashAlgorithm) (ReportData, error) {
	return bind(h, d.wire)
}

func bind(h HashAlgorithm, canonical []byte) (ReportData, error) {
	if len(canonical) == 0 {
		return ReportData{}, errors.New("binding report data: no runtime data")
	}
	digest, err := h.Sum(canonical)
	if err != nil {
		return ReportData{}, fmt.Errorf("binding report data: %w", err)
	}
	return newReportData(digest)
}
