// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"

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

// SealVault writes the sealed secret that stands for the secret name of the KBS, in the
// text form that Unseal reads (guest-components' docs/SEALED_SECRET.md). The text holds
// a name and nothing secret. key is a P-256 key, whose public half guests find as a JWK
// under keyID; both ids have the form "kbs:///REPOSITORY/TYPE/TAG".
func SealVault(key *ecdsa.PrivateKey, keyID, name string) ([]byte, error) {
	if key.Curve != elliptic.P256() {
		return nil, errors.New("sealing: the signing key is not of P-256")
	}
	for what, id := range map[string]string{"key id": keyID, "name": name} {
		if err := CheckKeyID(id); err != nil {
			return nil, fmt.Errorf("sealing: %s: %w", what, err)
		}
	}
	header, err := json.Marshal(sealedHeader{Algorithm: sealedAlg, KeyID: keyID})
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	none := jsontext.Value("{}")
	payload, err := json.Marshal(sealedVaultJSON{
		Version: sealedVersion, Type: sealedVault, Name: name, Provider: packetProvider, ProviderSettings: none, Annotations: none,
	})
	if err != nil {
		return nil, fmt.Errorf("sealing: %w", err)
	}
	b64 := base64.RawURLEncoding
	signed := b64.EncodeToString(header) + "." + b64.EncodeToString(payload)
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
