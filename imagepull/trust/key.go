// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

const (
	// maxKeyText bounds the PEM text of one key.
	maxKeyText = 16 << 10
	// minRSA and maxRSA bound an RSA modulus in bits: below it can be broken, above it only costs time.
	minRSA = 2048
	maxRSA = 8192
)

// publicKey is a key that may have signed.
type publicKey struct {
	key crypto.PublicKey
	// der is the key's SubjectPublicKeyInfo.
	der []byte
	// id is "SHA256:" and the hex SHA-256 of the key's SubjectPublicKeyInfo, for messages.
	id string
}

// parseKey reads one public key, a PEM block PUBLIC KEY (RFC 7468 section 13) with a SubjectPublicKeyInfo: RSA of 2048
// to 8192 bits, ECDSA on P-256, P-384 or P-521, Ed25519.
func parseKey(text []byte) (publicKey, error) {
	if len(text) > maxKeyText {
		return publicKey{}, fmt.Errorf("public key of %d bytes, at most %d", len(text), maxKeyText)
	}
	block, rest := pem.Decode(text)
	if block == nil {
		return publicKey{}, errors.New("public key is not PEM")
	}
	if block.Type != "PUBLIC KEY" {
		return publicKey{}, fmt.Errorf("PEM block is %q, want PUBLIC KEY", block.Type)
	}
	if len(bytes.TrimSpace(rest)) != 0 {
		return publicKey{}, errors.New("more than one PEM block where one key belongs")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return publicKey{}, fmt.Errorf("parsing public key: %w", err)
	}
	return acceptKey(key, block.Bytes)
}

// acceptKey refuses what parseKey does. der is the key's SubjectPublicKeyInfo.
func acceptKey(key crypto.PublicKey, der []byte) (publicKey, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits < minRSA || bits > maxRSA {
			return publicKey{}, fmt.Errorf("RSA key of %d bits, want %d to %d", bits, minRSA, maxRSA)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return publicKey{}, fmt.Errorf("ECDSA key on curve %s", k.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return publicKey{}, fmt.Errorf("public key of type %T", key)
	}
	sum := sha256.Sum256(der)
	return publicKey{key: key, der: der, id: "SHA256:" + hex.EncodeToString(sum[:])}, nil
}

// verify says whether signature is over message. RSA is PKCS #1 v1.5 with SHA-256, as cosign and containers sign; a
// PSS signature is not accepted. ECDSA is ASN.1 with SHA-256, which cosign takes for every curve, or with the hash
// of the curve's size, which newer versions take. Ed25519 is over the message itself.
func (p publicKey) verify(message, signature []byte) bool {
	sum := sha256.Sum256(message)
	switch k := p.key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, sum[:], signature) == nil
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(k, sum[:], signature) {
			return true
		}
		switch k.Curve {
		case elliptic.P384():
			long := sha512.Sum384(message)
			return ecdsa.VerifyASN1(k, long[:], signature)
		case elliptic.P521():
			long := sha512.Sum512(message)
			return ecdsa.VerifyASN1(k, long[:], signature)
		}
	case ed25519.PublicKey:
		return ed25519.Verify(k, message, signature)
	}
	return false
}
