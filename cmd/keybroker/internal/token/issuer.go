// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// Lifetime is how long a token opens resources, Trustee's default.
	Lifetime = 5 * time.Minute

	// MaxSize bounds a compact token. Its claims are a few KiB; a header line of this
	// size still fits what HTTP servers take.
	MaxSize = 32 << 10

	// coordinate is the width of r and s in an ES256 signature (RFC 7518 section 3.4).
	coordinate = 32
)

// Issuer signs tokens and recognises its own. It is safe for concurrent use.
type Issuer struct {
	key    *ecdsa.PrivateKey
	header string // base64url, the same in every token
	build  string
}

// GenerateKey returns a new P-256 signing key as PKCS #8. The caller clears it.
func GenerateKey() ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return x509.MarshalPKCS8PrivateKey(key)
}

// NewIssuer takes a key from GenerateKey, which the caller clears, and a text that
// tells builds of the keybroker apart.
func NewIssuer(pkcs8 []byte, build string) (*Issuer, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("parsing token key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("token key is %T, want ECDSA on P-256", parsed)
	}
	id, err := keyID(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	header := fmt.Sprintf(`{"alg":"ES256","kid":%q,"typ":"JWT"}`, id)
	return &Issuer{key: key, header: encode([]byte(header)), build: build}, nil
}

// keyID is the JWK thumbprint of RFC 7638.
func keyID(pub *ecdsa.PublicKey) (string, error) {
	point, err := pub.Bytes() // 0x04 ‖ x ‖ y
	if err != nil {
		return "", fmt.Errorf("encoding token key: %w", err)
	}
	jwk := fmt.Sprintf(`{"crv":"P-256","kty":"EC","x":%q,"y":%q}`, encode(point[1:1+coordinate]), encode(point[1+coordinate:]))
	sum := sha256.Sum256([]byte(jwk))
	return encode(sum[:]), nil
}

// Issue returns a compact JWT that is valid for Lifetime from now.
func (i *Issuer) Issue(g Grant, now time.Time) ([]byte, error) {
	p, err := newPayload(g, i.build, now, Lifetime)
	if err != nil {
		return nil, fmt.Errorf("issuing token: %w", err)
	}
	claims, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("issuing token: %w", err)
	}
	signed := i.header + "." + encode(claims)
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, digest[:])
	if err != nil {
		return nil, fmt.Errorf("issuing token: %w", err)
	}
	signature := make([]byte, 2*coordinate)
	r.FillBytes(signature[:coordinate])
	s.FillBytes(signature[coordinate:])
	token := signed + "." + encode(signature)
	if len(token) > MaxSize {
		return nil, fmt.Errorf("issuing token: %d bytes, at most %d allowed", len(token), MaxSize)
	}
	return []byte(token), nil
}

// encode is base64url without padding; strict refuses other spellings on the way back.
func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
