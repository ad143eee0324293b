// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"
)

const (
	boxKeyBytes   = 32
	boxNonceBytes = 24
	saltBytes     = 32

	// Cosign uses N = 32768 or 65536, r = 8, p = 1. Memory is 128 * N * r
	// bytes: 128 MiB at most here.
	minScryptN = 1 << 14
	maxScryptN = 1 << 17
	scryptR    = 8
	scryptP    = 1
)

// encryptedKey is the JSON in the PEM block of a protected key: scrypt makes
// the key of a NaCl secretbox with the PKCS #8 key inside.
type encryptedKey struct {
	KDF struct {
		Name   string `json:"name"`
		Params struct {
			N int `json:"N"`
			R int `json:"r"`
			P int `json:"p"`
		} `json:"params"`
		Salt []byte `json:"salt"`
	} `json:"kdf"`
	Cipher struct {
		Name  string `json:"name"`
		Nonce []byte `json:"nonce"`
	} `json:"cipher"`
	Ciphertext []byte `json:"ciphertext"`
}

// openEncrypted returns the PKCS #8 key, which the caller clears.
func openEncrypted(raw, passphrase []byte) ([]byte, error) {
	var k encryptedKey
	if err := json.Unmarshal(raw, &k, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("protected key: %w", err)
	}
	if err := k.check(); err != nil {
		return nil, fmt.Errorf("protected key: %w", err)
	}
	if len(passphrase) == 0 {
		return nil, ErrPassphrase
	}
	derived, err := scrypt.Key(passphrase, k.KDF.Salt, k.KDF.Params.N, scryptR, scryptP, boxKeyBytes)
	defer clear(derived)
	if err != nil {
		return nil, fmt.Errorf("protected key: %w", err)
	}
	der, ok := secretbox.Open(nil, k.Ciphertext, (*[boxNonceBytes]byte)(k.Cipher.Nonce), (*[boxKeyBytes]byte)(derived))
	if !ok {
		return nil, ErrPassphrase
	}
	return der, nil
}

func (k *encryptedKey) check() error {
	if k.KDF.Name != "scrypt" || k.Cipher.Name != "nacl/secretbox" {
		return fmt.Errorf("%q with %q, want scrypt with nacl/secretbox", k.KDF.Name, k.Cipher.Name)
	}
	p := k.KDF.Params
	if p.N < minScryptN || p.N > maxScryptN || p.N&(p.N-1) != 0 || p.R != scryptR || p.P != scryptP {
		return fmt.Errorf("scrypt with N=%d r=%d p=%d, want N a power of 2 from %d to %d, r=%d, p=%d",
			p.N, p.R, p.P, minScryptN, maxScryptN, scryptR, scryptP)
	}
	if len(k.KDF.Salt) != saltBytes || len(k.Cipher.Nonce) != boxNonceBytes {
		return fmt.Errorf("salt of %d and nonce of %d bytes, want %d and %d", len(k.KDF.Salt), len(k.Cipher.Nonce), saltBytes, boxNonceBytes)
	}
	if len(k.Ciphertext) <= secretbox.Overhead {
		return errors.New("no ciphertext")
	}
	return nil
}
