// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	// MaxBundleSize bounds a signed bundle in bytes: all kinds, in base64.
	MaxBundleSize = 16 << 20

	// payloadType says what an envelope holds, so that no signature over something else
	// is taken for one over a bundle.
	payloadType = "application/vnd.casemate.reference-values.v1+json"

	maxKeySize = 64 << 10
)

// ErrSignature means that no signature of a bundle is the key's.
var ErrSignature = errors.New("no signature by this key")

// Bundle is what a release's guests will report: a result for each way in which they are
// launched.
type Bundle struct {
	// Release is the release's name, for people.
	Release string `json:"release"`

	// Results are of different kinds.
	Results []Result `json:"results"`
}

// envelope is DSSE (secure-systems-lab/dsse, protocol.md and envelope.md).
type envelope struct {
	PayloadType string              `json:"payloadType"`
	Payload     []byte              `json:"payload"` // base64
	Signatures  []envelopeSignature `json:"signatures"`
}

type envelopeSignature struct {
	KeyID string `json:"keyid"` // SHA-256 of the SubjectPublicKeyInfo, hex: a hint
	Sig   []byte `json:"sig"`   // ECDSA with SHA-256, ASN.1 DER; base64
}

// preAuth is what DSSE signs: type and payload with their lengths.
func preAuth(payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// Of returns the result of a kind.
func (b Bundle) Of(kind string) (Result, bool) {
	i := slices.IndexFunc(b.Results, func(r Result) bool { return r.Kind == kind })
	if i < 0 {
		return Result{}, false
	}
	return b.Results[i], true
}

func (b Bundle) validate() error {
	if err := checkName(b.Release); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	if len(b.Results) == 0 {
		return errors.New("no results")
	}
	kinds := make(map[string]bool)
	for i := range b.Results {
		r := &b.Results[i]
		if err := r.validate(); err != nil {
			return fmt.Errorf("result %s: %w", r.Kind, err)
		}
		if kinds[r.Kind] {
			return fmt.Errorf("two results of kind %s", r.Kind)
		}
		kinds[r.Kind] = true
	}
	return nil
}

// Sign returns the bundle in an envelope with one signature.
func (b Bundle) Sign(key *ecdsa.PrivateKey) ([]byte, error) {
	if err := b.validate(); err != nil {
		return nil, fmt.Errorf("signing reference values: %w", err)
	}
	payload, err := json.Marshal(b, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("signing reference values: %w", err)
	}
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("signing reference values: %w", err)
	}
	sum := sha256.Sum256(preAuth(payload))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("signing reference values: %w", err)
	}
	text, err := json.Marshal(envelope{payloadType, payload, []envelopeSignature{{id, sig}}}, json.Deterministic(true), jsontext.WithIndent("  "))
	if err != nil {
		return nil, fmt.Errorf("signing reference values: %w", err)
	}
	return append(text, '\n'), nil
}

// Open returns the bundle in an envelope that the key has signed. Nothing of the payload is
// parsed before.
func Open(text []byte, key *ecdsa.PublicKey) (Bundle, error) {
	if len(text) > MaxBundleSize {
		return Bundle{}, fmt.Errorf("opening reference values: %d bytes, at most %d allowed", len(text), MaxBundleSize)
	}
	var e envelope
	if err := json.Unmarshal(text, &e, json.RejectUnknownMembers(true)); err != nil {
		return Bundle{}, fmt.Errorf("opening reference values: %w", err)
	}
	if e.PayloadType != payloadType {
		return Bundle{}, fmt.Errorf("opening reference values: payload type %.100q, want %q", e.PayloadType, payloadType)
	}
	sum := sha256.Sum256(preAuth(e.Payload))
	if !slices.ContainsFunc(e.Signatures, func(s envelopeSignature) bool { return ecdsa.VerifyASN1(key, sum[:], s.Sig) }) {
		return Bundle{}, fmt.Errorf("opening reference values: %w", ErrSignature)
	}
	var b Bundle
	if err := json.Unmarshal(e.Payload, &b, json.RejectUnknownMembers(true)); err != nil {
		return Bundle{}, fmt.Errorf("opening reference values: %w", err)
	}
	if err := b.validate(); err != nil {
		return Bundle{}, fmt.Errorf("opening reference values: %w", err)
	}
	return b, nil
}

func keyID(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// ParseKey reads the public key that bundles are checked with: PEM, as keygen writes it.
func ParseKey(text []byte) (*ecdsa.PublicKey, error) {
	if len(text) > maxKeySize {
		return nil, fmt.Errorf("reading the key of reference values: %d bytes, at most %d allowed", len(text), maxKeySize)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("reading the key of reference values: want one PEM block PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the key of reference values: %w", err)
	}
	ec, ok := key.(*ecdsa.PublicKey)
	if !ok || ec.Curve.Params().BitSize != 256 {
		return nil, fmt.Errorf("reading the key of reference values: %T, want ECDSA P-256", key)
	}
	return ec, nil
}
