// SPDX-License-Identifier: Apache-2.0

package measured

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
)

// MaxSignatureSize bounds a detached signature's file, in bytes.
const MaxSignatureSize = 1 << 10

// SignDetached returns a signature over a message of another's format, that goes beside
// it: ECDSA with SHA-256 in ASN.1 DER, in base64 with a line's end, as `cosign sign-blob` writes it and `openssl
// dgst -sha256 -verify` takes it decoded.
func SignDetached(message []byte, key *ecdsa.PrivateKey) ([]byte, error) {
	sum := sha256.Sum256(message)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		return nil, fmt.Errorf("signing a message: %w", err)
	}
	return append(base64.StdEncoding.AppendEncode(nil, sig), '\n'), nil
}

// VerifyDetached checks such a signature, with or without the line's end. A signature of
// another key or over other bytes is ErrSignature.
func VerifyDetached(message, signature []byte, key *ecdsa.PublicKey) error {
	if len(signature) > MaxSignatureSize {
		return fmt.Errorf("checking a signature: %d bytes, at most %d allowed", len(signature), MaxSignatureSize)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(string(bytes.TrimSuffix(signature, []byte("\n"))))
	if err != nil {
		return fmt.Errorf("checking a signature: %w", err)
	}
	sum := sha256.Sum256(message)
	if !ecdsa.VerifyASN1(key, sum[:], sig) {
		return fmt.Errorf("checking a signature: %w", ErrSignature)
	}
	return nil
}
