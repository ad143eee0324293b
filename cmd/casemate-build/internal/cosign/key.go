// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	pemPrivate           = "PRIVATE KEY"
	pemPublic            = "PUBLIC KEY"
	pemEncryptedCosign   = "ENCRYPTED COSIGN PRIVATE KEY"
	pemEncryptedSigstore = "ENCRYPTED SIGSTORE PRIVATE KEY"

	// MaxKeyBytes bounds a key file; real ones are under 1 KiB.
	MaxKeyBytes = 16 << 10
)

// ErrPassphrase says that a key is protected and the passphrase is missing or
// wrong.
var ErrPassphrase = errors.New("missing or wrong passphrase")

// GenerateKey makes a key pair: the private key as plain PKCS #8, the public
// key as SubjectPublicKeyInfo, both PEM. The caller clears the private one.
func GenerateKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating signing key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	defer clear(der)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding signing key: %w", err)
	}
	public, err = MarshalPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der}), public, nil
}

// MarshalPublicKey returns the PEM form that verifiers read.
func MarshalPublicKey(key *ecdsa.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, fmt.Errorf("encoding public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: der}), nil
}

// ParsePrivateKey reads an ECDSA P-256 private key in PEM. passphrase opens
// cosign's protected form and is ignored for a plain key.
func ParsePrivateKey(text, passphrase []byte) (*ecdsa.PrivateKey, error) {
	if len(text) > MaxKeyBytes {
		return nil, fmt.Errorf("reading signing key: %d bytes, want at most %d", len(text), MaxKeyBytes)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("reading signing key: no PEM block")
	}
	defer clear(block.Bytes)
	der := block.Bytes
	switch block.Type {
	case pemPrivate:
	case pemEncryptedCosign, pemEncryptedSigstore:
		var err error
		if der, err = openEncrypted(block.Bytes, passphrase); err != nil {
			return nil, fmt.Errorf("reading signing key: %w", err)
		}
		defer clear(der)
	case "EC PRIVATE KEY":
		return nil, errors.New("reading signing key: a SEC 1 key; `openssl pkcs8 -topk8 -nocrypt` makes a PKCS #8 key of it")
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("reading signing key: a password-protected PKCS #8 key; `openssl pkcs8` takes the password off")
	default:
		return nil, fmt.Errorf("reading signing key: PEM block %q, want %q", block.Type, pemPrivate)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("reading signing key: no PKCS #8 key")
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errors.New("reading signing key: want ECDSA on the curve P-256")
	}
	return ec, nil
}
