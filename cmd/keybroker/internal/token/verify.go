// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// ErrExpired says that a token was this keybroker's and its time is over.
var ErrExpired = errors.New("token has expired")

// Verified is a token that this keybroker issued and that is valid now.
type Verified struct {
	ID       string
	Workload string
	Facts    verifier.Facts
	// TEEKey is what every answer to the bearer is encrypted to.
	TEEKey evidence.JWK
	// Claims is the payload as signed, the input of policies.
	Claims []byte
}

// Verify accepts a token that this issuer signed and that has not expired at now.
func (i *Issuer) Verify(compact string, now time.Time) (Verified, error) {
	if len(compact) > MaxSize {
		return Verified{}, fmt.Errorf("token is %d bytes, at most %d allowed", len(compact), MaxSize)
	}
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return Verified{}, fmt.Errorf("token has %d parts, want 3", len(parts))
	}
	if parts[0] != i.header {
		return Verified{}, errors.New("token header is not the one of this keybroker: another issuer, algorithm or key")
	}
	claims, err := decode(parts[1])
	if err != nil {
		return Verified{}, fmt.Errorf("decoding token claims: %w", err)
	}
	signature, err := decode(parts[2])
	if err != nil {
		return Verified{}, fmt.Errorf("decoding token signature: %w", err)
	}
	if len(signature) != 2*coordinate {
		return Verified{}, fmt.Errorf("token signature is %d bytes, want %d", len(signature), 2*coordinate)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	r, s := new(big.Int).SetBytes(signature[:coordinate]), new(big.Int).SetBytes(signature[coordinate:])
	if !ecdsa.Verify(&i.key.PublicKey, digest[:], r, s) {
		return Verified{}, errors.New("token signature does not verify")
	}
	p, key, err := parsePayload(claims)
	if err != nil {
		return Verified{}, err
	}
	if now.Unix() >= p.Expires {
		return Verified{}, ErrExpired
	}
	return Verified{ID: p.ID, Workload: p.Binding.Workload, Facts: p.Binding.Facts, TEEKey: key, Claims: claims}, nil
}

func decode(s string) ([]byte, error) {
	// Go's decoder skips line breaks; a token has none.
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("not canonical base64url")
	}
	return base64.RawURLEncoding.Strict().DecodeString(s)
}
