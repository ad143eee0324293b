// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// SealJWE encrypts secret for the TEE key, as a KBS answers a resource request. The
// guest only opens; this is the relying party's half.
func SealJWE(key JWK, secret []byte) (JWE, error) {
	if len(secret) > MaxSecretSize {
		return JWE{}, fmt.Errorf("sealing JWE: secret is %d bytes, at most %d allowed", len(secret), MaxSecretSize)
	}
	contentKey := make([]byte, jweContentKey)
	defer clear(contentKey)
	rand.Read(contentKey) // never returns an error since Go 1.24
	header := JWEHeader{Algorithm: key.Algorithm()}
	var j JWE
	var err error
	switch {
	case key.ec != nil:
		err = j.wrapForEC(key, contentKey, &header)
	case key.rsa != nil:
		j.EncryptedKey, err = rsa.EncryptOAEP(sha256.New(), rand.Reader, key.rsa, contentKey, nil)
	default:
		err = errors.New("no TEE key")
	}
	if err == nil {
		j.Protected, err = header.encode()
	}
	if err != nil {
		return JWE{}, fmt.Errorf("sealing JWE: %w", err)
	}
	block, err := aes.NewCipher(contentKey)
	if err != nil {
		return JWE{}, fmt.Errorf("sealing JWE: %w", err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return JWE{}, fmt.Errorf("sealing JWE: %w", err)
	}
	j.IV = make([]byte, jweIVSize)
	rand.Read(j.IV)
	sealed := gcm.Seal(nil, j.IV, secret, []byte(j.Protected))
	j.Ciphertext, j.Tag = sealed[:len(secret)], sealed[len(secret):]
	return j, nil
}

// wrapForEC agrees with a fresh key and wraps the content key (RFC 7518 section 4.6).
func (j *JWE) wrapForEC(key JWK, contentKey []byte, header *JWEHeader) error {
	ephemeral, err := key.ec.Curve().GenerateKey(rand.Reader)
	if err != nil {
		return fmt.Errorf("generating ephemeral key: %w", err)
	}
	z, err := ephemeral.ECDH(key.ec)
	if err != nil {
		return fmt.Errorf("agreeing on a key: %w", err)
	}
	defer clear(z)
	kek := DeriveKEK(z)
	defer clear(kek)
	header.Ephemeral = ephemeral.PublicKey()
	j.EncryptedKey, err = wrapKey(kek, contentKey)
	return err
}

// DeriveKEK turns the ECDH result, the x coordinate at full curve width, into the
// 32-byte key encryption key: one round of the Concat KDF with SHA-256, no party
// infos, 256 bits (RFC 7518 section 4.6.2). The caller clears both.
func DeriveKEK(z []byte) []byte {
	h := sha256.New()
	writeU32 := func(n uint32) { h.Write(binary.BigEndian.AppendUint32(nil, n)) }
	writeU32(1) // round
	h.Write(z)
	writeU32(uint32(len(AlgECDHESA256KW)))
	h.Write([]byte(AlgECDHESA256KW))
	writeU32(0)   // PartyUInfo
	writeU32(0)   // PartyVInfo
	writeU32(256) // SuppPubInfo: key length in bits
	return h.Sum(nil)
}

// wrapKey is AES key wrap with the default initial value, RFC 3394 section 2.2.1.
func wrapKey(kek, key []byte) ([]byte, error) {
	block, err := aes.NewCipher(kek)
	if err != nil {
		return nil, fmt.Errorf("wrapping key: %w", err)
	}
	n := len(key) / 8
	out := make([]byte, 8+len(key))
	copy(out[8:], key)
	buf := make([]byte, 16)
	defer clear(buf)
	a := buf[:8]
	for i := range a {
		a[i] = 0xA6
	}
	for step := range 6 * n {
		r := out[8+8*(step%n):][:8]
		copy(buf[8:], r)
		block.Encrypt(buf, buf)
		copy(r, buf[8:])
		t := binary.BigEndian.Uint64(a) ^ uint64(step+1)
		binary.BigEndian.PutUint64(a, t)
	}
	copy(out, a)
	return out, nil
}
