// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	sealedPrefix = "sealed."
	sealedAlg    = "ES256"
	p256Bytes    = 32
)

// sealedPayload is the union of the two payload forms.
type sealedPayload struct {
	Version          string         `json:"version"`
	Type             string         `json:"type"`
	Provider         string         `json:"provider"`
	ProviderSettings jsontext.Value `json:"provider_settings"`
	Annotations      jsontext.Value `json:"annotations"`

	Name string `json:"name"` // vault

	KeyID         string   `json:"key_id"` // envelope, here and below
	EncryptedKey  []byte   `json:"encrypted_key"`
	EncryptedData []byte   `json:"encrypted_data"`
	WrapType      WrapType `json:"wrap_type"`
	IV            []byte   `json:"iv"`
}

// sealedText is a sealed secret taken apart and not yet verified.
type sealedText struct {
	keyID     string // of the verification key
	signed    []byte // header.payload as they stand in the text
	payload   []byte // decoded
	signature []byte // r‖s, 32 bytes each, big-endian
}

func parseSealed(text []byte) (*sealedText, error) {
	if len(text) > MaxSealedBytes {
		return nil, fmt.Errorf("%d bytes, want at most %d", len(text), MaxSealedBytes)
	}
	jws, ok := bytes.CutPrefix(text, []byte(sealedPrefix))
	if !ok {
		return nil, fmt.Errorf("it does not start with %q", sealedPrefix)
	}
	parts := bytes.Split(jws, []byte("."))
	if len(parts) != 3 {
		return nil, fmt.Errorf("%d parts behind the prefix, want header.payload.signature", len(parts))
	}
	var decoded [3][]byte
	for i, name := range []string{"header", "payload", "signature"} {
		var err error
		if decoded[i], err = decodeSealedPart(parts[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(decoded[2]) != 2*p256Bytes {
		return nil, fmt.Errorf("signature of %d bytes, want %d", len(decoded[2]), 2*p256Bytes)
	}
	var header struct {
		Algorithm string `json:"alg"`
		KeyID     string `json:"kid"`
		Type      string `json:"typ"`
	}
	// Unknown members are refused, so "crit" and "b64" never change what is signed.
	if err := json.Unmarshal(decoded[0], &header, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if header.Algorithm != sealedAlg {
		return nil, fmt.Errorf("header: alg %.32q, want %s", header.Algorithm, sealedAlg)
	}
	return &sealedText{keyID: header.KeyID, signed: jws[:len(parts[0])+1+len(parts[1])], payload: decoded[1], signature: decoded[2]}, nil
}

// decodeSealedPart takes unpadded base64url without line breaks, which Go's
// decoder would skip, and without stray trailing bits.
func decodeSealedPart(part []byte) ([]byte, error) {
	if len(part) == 0 || bytes.ContainsAny(part, "\r\n") {
		return nil, errors.New("want base64url without padding")
	}
	out, err := base64.RawURLEncoding.Strict().AppendDecode(nil, part)
	if err != nil {
		return nil, errors.New("want base64url without padding")
	}
	return out, nil
}

// verify checks the signature by the key that the header names.
func (u *Unsealer) verify(ctx context.Context, s *sealedText) error {
	key, err := u.verificationKey(ctx, s.keyID)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(s.signed)
	r, sv := new(big.Int).SetBytes(s.signature[:p256Bytes]), new(big.Int).SetBytes(s.signature[p256Bytes:])
	if !ecdsa.Verify(key, digest[:], r, sv) {
		return fmt.Errorf("%w: the signature is not by key %s", ErrSealedSignature, s.keyID)
	}
	return nil
}

// verificationKey finds a key among the measured ones, or at the KBS when its name is a
// URI of it.
func (u *Unsealer) verificationKey(ctx context.Context, keyID string) (*ecdsa.PublicKey, error) {
	if key := u.Measured[keyID]; key != nil {
		return key, nil
	}
	uri, err := parseKeyID(keyID)
	if err != nil {
		return nil, fmt.Errorf("%w: header: kid is no measured key's and no URI: %w", ErrSealed, err)
	}
	raw, err := u.Keys.Key(ctx, uri)
	defer clear(raw) // it may hold the private half as well
	if err != nil {
		return nil, fmt.Errorf("%w: %w %s: %w", ErrSealedSignature, ErrKey, uri, err)
	}
	key, err := ParseVerificationKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: key %s: %w", ErrSealedSignature, uri, err)
	}
	return key, nil
}

// ParseVerificationKey reads a JWK (RFC 7517) of P-256. Other members, a private
// "d" among them, are allowed and not used; errors quote nothing of it.
func ParseVerificationKey(raw []byte) (*ecdsa.PublicKey, error) {
	var jwk struct {
		Type  string `json:"kty"`
		Curve string `json:"crv"`
		X     string `json:"x"`
		Y     string `json:"y"`
		Alg   string `json:"alg"`
		Use   string `json:"use"`
	}
	if err := json.Unmarshal(raw, &jwk); err != nil {
		return nil, errors.New("it is not a JWK")
	}
	if jwk.Type != "EC" || jwk.Curve != "P-256" {
		return nil, errors.New("it is not an EC key of P-256")
	}
	if (jwk.Alg != "" && jwk.Alg != sealedAlg) || (jwk.Use != "" && jwk.Use != "sig") {
		return nil, errors.New("it is a key for another use")
	}
	point := []byte{4} // uncompressed, SEC 1 section 2.3.4
	for _, text := range []string{jwk.X, jwk.Y} {
		c, err := decodeSealedPart([]byte(text))
		if err != nil || len(c) != p256Bytes {
			return nil, errors.New("its coordinates are not 32 bytes each")
		}
		point = append(point, c...)
	}
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return nil, errors.New("its point is not on the curve")
	}
	return key, nil
}
