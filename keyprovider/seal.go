// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

type sealedHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
}

// sealedVaultJSON has the members of the vault form alone.
type sealedVaultJSON struct {
	Version          string         `json:"version"`
	Type             string         `json:"type"`
	Name             string         `json:"name"`
	Provider         string         `json:"provider"`
	ProviderSettings jsontext.Value `json:"provider_settings"`
	Annotations      jsontext.Value `json:"annotations"`
}

// sealedEnvelopeJSON has the members of the envelope form alone.
type sealedEnvelopeJSON struct {
	Version          string         `json:"version"`
	Type             string         `json:"type"`
	KeyID            string         `json:"key_id"`
	EncryptedKey     []byte         `json:"encrypted_key"`
	EncryptedData    []byte         `json:"encrypted_data"`
	WrapType         WrapType       `json:"wrap_type"`
	IV               []byte         `json:"iv"`
	Provider         string         `json:"provider"`
	ProviderSettings jsontext.Value `json:"provider_settings"`
	Annotations      jsontext.Value `json:"annotations"`
}

// SealVault writes the sealed secret that stands for the secret name of the KBS, in the
// text form that Unseal reads (guest-components' docs/SEALED_SECRET.md). The text holds
// a name and nothing secret. key is a P-256 key, whose public half guests find as a JWK
// under keyID; both ids have the form "kbs:///REPOSITORY/TYPE/TAG", or keyID is the name of
// a key that guests have measured.
func SealVault(key *ecdsa.PrivateKey, keyID, name string) ([]byte, error) {
	if err := CheckKeyID(name); err != nil {
		return nil, fmt.Errorf("sealing: name: %w", err)
	}
	return SealStored(key, keyID, packetProvider, name, []byte("{}"), []byte("{}"))
}

// SealStored is SealVault for a secret of another store: provider is the name of an
// Unsealer's Stores, settings and annotations are JSON objects that the store reads.
func SealStored(key *ecdsa.PrivateKey, keyID, provider, name string, settings, annotations []byte) ([]byte, error) {
	return sign(key, keyID, sealedVaultJSON{
		Version: sealedVersion, Type: sealedVault, Name: name, Provider: provider,
		ProviderSettings: settings, Annotations: annotations,
	})
}

// KMSKey is a key of a KMS, which wraps data keys.
type KMSKey struct {
	// Provider is the name of an Unsealer's KMS, ID the key's name there.
	Provider, ID string
	// Settings and Annotations are JSON objects that the KMS reads.
	Settings, Annotations []byte
}

// SealEnvelope writes the sealed secret that holds secret itself, encrypted (A256GCM) by
// dataKey, 32 bytes. wrapped is that key as kms wrapped it. The
// text grows with the secret, and guests read at most MaxSealedBytes.
func SealEnvelope(key *ecdsa.PrivateKey, keyID string, kms KMSKey, dataKey, wrapped, secret []byte) ([]byte, error) {
	block, err := newKEKCipher(dataKey)
	if err != nil {
		return nil, fmt.Errorf("sealing: data key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	iv := make([]byte, gcmIVBytes)
	rand.Read(iv)
	text, err := sign(key, keyID, sealedEnvelopeJSON{
		Version: sealedVersion, Type: sealedEnvelope, KeyID: kms.ID, EncryptedKey: wrapped,
		EncryptedData: aead.Seal(nil, iv, secret, nil), WrapType: A256GCM, IV: iv,
		Provider: kms.Provider, ProviderSettings: kms.Settings, Annotations: kms.Annotations,
	})
	if err == nil && len(text) > MaxSealedBytes {
		return nil, fmt.Errorf("sealing: %d bytes of text, want at most %d", len(text), MaxSealedBytes)
	}
	return text, err
}

// sign writes a payload as a compact JWS behind "sealed.".
func sign(key *ecdsa.PrivateKey, keyID string, payload any) ([]byte, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("sealing: the signing key is not of P-256")
	}
	if err := checkVerificationID(keyID); err != nil {
		return nil, fmt.Errorf("sealing: key id: %w", err)
	}
	header, err := json.Marshal(sealedHeader{Algorithm: sealedAlg, KeyID: keyID})
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	body, err := json.Marshal(payload)
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString(header) + "." + b64.EncodeToString(body)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	signature := make([]byte, 2*p256Bytes) // r‖s, RFC 7518 section 3.4
	r.FillBytes(signature[:p256Bytes])
	s.FillBytes(signature[p256Bytes:])
	return []byte(sealedPrefix + signed + "." + b64.EncodeToString(signature)), nil
}

// checkVerificationID takes a URI of the KBS, or the name of a key that guests have measured.
func checkVerificationID(keyID string) error {
	if strings.Contains(keyID, "/") {
		return CheckKeyID(keyID)
	}
	if len(keyID) > MaxKeyIDBytes {
		return fmt.Errorf("name of %d bytes, want at most %d", len(keyID), MaxKeyIDBytes)
	}
	return checkSegment(keyID)
}

// VerificationKey writes the public JWK (RFC 7517) that the KBS must hold under the key
// id of sealed secrets.
func VerificationKey(key *ecdsa.PublicKey) ([]byte, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("writing verification key: it is not of P-256")
	}
	point, err := key.Bytes() // 4, x, y
	if err != nil {
		return nil, fmt.Errorf("writing verification key: %w", err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return json.Marshal(struct {
		Type  string `json:"kty"`
		Curve string `json:"crv"`
		Alg   string `json:"alg"`
		Use   string `json:"use"`
		X     string `json:"x"`
		Y     string `json:"y"`
	}{"EC", "P-256", sealedAlg, "sig", b64(point[1 : 1+p256Bytes]), b64(point[1+p256Bytes:])})
}
