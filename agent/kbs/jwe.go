// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
)

// contentKeySize is the AES-256 key of A256GCM.
const contentKeySize = 32

// errNotForUs says that our key does not open the answer; why is not told apart.
var errNotForUs = errors.New("opening JWE: not encrypted to this session's key, or altered")

// open decrypts an answer that was made for this key (RFC 7516 section 5.2). The
// header is parsed strictly, so the algorithm is the one of our key and A256GCM, with
// nothing that changes their meaning. The caller clears the result.
func (k teeKey) open(raw []byte) ([]byte, error) {
	j, err := evidence.ParseJWE(raw)
	if err != nil {
		return nil, err
	}
	header, err := j.Header()
	if err != nil {
		return nil, err
	}
	contentKey, err := k.contentKey(header, j.EncryptedKey)
	if err != nil {
		return nil, err
	}
	defer clear(contentKey)
	if len(contentKey) != contentKeySize {
		return nil, fmt.Errorf("opening JWE: content key is %d bytes, want %d", len(contentKey), contentKeySize)
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return nil, fmt.Errorf("opening JWE: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("opening JWE: %w", err)
	}
	// The header as it came is authenticated, not one printed again from its parts.
	secret, err := gcm.Open(nil, j.IV, append(j.Ciphertext, j.Tag...), []byte(j.Protected))
	if err != nil {
		return nil, errNotForUs
	}
	return secret, nil
}

// contentKey recovers the key that the content is encrypted with. The caller clears it.
func (k teeKey) contentKey(h evidence.JWEHeader, wrapped []byte) ([]byte, error) {
	switch {
	case k.ec != nil && h.Algorithm == evidence.AlgECDHESA256KW:
		if h.Ephemeral.Curve() != k.ec.Curve() {
			return nil, fmt.Errorf("opening JWE: ephemeral key on %v, want %v", h.Ephemeral.Curve(), k.ec.Curve())
		}
		z, err := k.ec.ECDH(h.Ephemeral)
		if err != nil {
			return nil, fmt.Errorf("opening JWE: agreeing on a key: %w", err)
		}
		defer clear(z)
		kek := evidence.DeriveKEK(z)
		defer clear(kek)
		return unwrapKey(kek, wrapped)
	case k.rsa != nil && h.Algorithm == evidence.AlgRSAOAEP256:
		key, err := rsa.DecryptOAEP(sha256.New(), rand.Reader, k.rsa, wrapped, nil)
		if err != nil {
			return nil, errNotForUs
		}
		return key, nil
	}
	return nil, fmt.Errorf("opening JWE: alg %q is not for this session's key", h.Algorithm)
}

// unwrapKey is AES key unwrap with the default initial value, RFC 3394 section 2.2.2.
func unwrapKey(kek, wrapped []byte) ([]byte, error) {
	if len(wrapped)%8 != 0 || len(wrapped) < 24 {
		return nil, fmt.Errorf("opening JWE: wrapped key of %d bytes", len(wrapped))
	}
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("opening JWE: %w", err)
	}
	key := append([]byte(nil), wrapped[8:]...)
	n := len(key) / 8
	buf := make([]byte, 16)
	defer clear(buf)
	a := buf[:8]
	copy(a, wrapped)
	for step := 6*n - 1; step >= 0; step-- {
		r := key[8*(step%n):][:8]
		binary.BigEndian.PutUint64(a, binary.BigEndian.Uint64(a)^uint64(step+1))
		copy(buf[8:], r)
		block.Decrypt(buf, buf)
		copy(r, buf[8:])
	}
	initial := []byte{0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6}
	if subtle.ConstantTimeCompare(a, initial) != 1 {
		clear(key)
		return nil, errNotForUs
	}
	return key, nil
}
