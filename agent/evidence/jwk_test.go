// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

func newECKey(t testing.TB, curve ecdh.Curve) (*ecdh.PrivateKey, JWK) {
	t.Helper()
	priv, err := curve.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewECJWK(priv.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	return priv, key
}

func newRSAKey(t testing.TB) (*rsa.PrivateKey, JWK) {
	t.Helper()
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	key, err := NewRSAJWK(&priv.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return priv, key
}

func TestJWKRoundTripAndAnotherReader(t *testing.T) {
	_, p256 := newECKey(t, ecdh.P256())
	_, p521 := newECKey(t, ecdh.P521())
	_, rsaKey := newRSAKey(t)
	for name, key := range map[string]JWK{"P-256": p256, "P-521": p521, "RSA": rsaKey} {
		text := key.Canonical()
		back, err := ParseJWK(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !back.Equal(key) || string(back.Canonical()) != string(text) {
			t.Errorf("%s: parsed key differs", name)
		}
		var other jose.JSONWebKey
		if err := other.UnmarshalJSON(text); err != nil || !other.Valid() || other.Algorithm != key.Algorithm() {
			t.Errorf("%s: go-jose reads alg %q, valid %v: %v", name, other.Algorithm, other.Valid(), err)
		}
	}
	if p256.Equal(p521) || p256.Equal(rsaKey) || (JWK{}).Equal(JWK{}) {
		t.Error("different keys compare equal")
	}
	if !(JWK{}).IsZero() || (JWK{}).Canonical() != nil || (JWK{}).Algorithm() != "" {
		t.Error("the zero JWK is a key")
	}
}

func TestParseJWKRefuses(t *testing.T) {
	const x = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
	const y = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
	ec := func(alg, crv, x, y, more string) string {
		return fmt.Sprintf(`{"kty":"EC","alg":"%s","crv":"%s","x":"%s","y":"%s"%s}`, alg, crv, x, y, more)
	}
	rsaText := func(n *big.Int, e string) string {
		return fmt.Sprintf(`{"kty":"RSA","alg":"RSA-OAEP-256","n":"%s","e":"%s"}`, base64.RawURLEncoding.EncodeToString(n.Bytes()), e)
	}
	priv, _ := newRSAKey(t)
	n := priv.N
	short := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(1))
	zero32 := base64.RawURLEncoding.EncodeToString(make([]byte, 32))
	for _, tc := range []struct{ name, text, want string }{
		{"key id the hash does not cover", ec(AlgECDHESA256KW, "P-256", x, y, `,"kid":"k"`), `unknown member "kid"`},
		{"private key sent along", ec(AlgECDHESA256KW, "P-256", x, y, `,"d":"AA"`), `unknown member "d"`},
		{"second x wins elsewhere", ec(AlgECDHESA256KW, "P-256", x, y, `,"x":"`+y+`"`), "occurs twice"},
		{"member name in capitals", strings.Replace(ec(AlgECDHESA256KW, "P-256", x, y, ""), `"x"`, `"X"`, 1), "missing"},
		{"no alg", strings.Replace(ec(AlgECDHESA256KW, "P-256", x, y, ""), `"alg":"ECDH-ES+A256KW",`, "", 1), "missing"},
		{"deprecated RSA1_5", strings.Replace(rsaText(n, "AQAB"), "RSA-OAEP-256", "RSA1_5", 1), "RSA1_5"},
		{"alg of another kind of key", ec("RSA-OAEP-256", "P-256", x, y, ""), "unsupported kty"},
		{"direct agreement", ec("ECDH-ES", "P-256", x, y, ""), "unsupported kty"},
		{"P-384", ec(AlgECDHESA256KW, "P-384", x, y, ""), "unsupported curve"},
		{"secp256k1", ec(AlgECDHESA256KW, "secp256k1", x, y, ""), "unsupported curve"},
		{"coordinates of another curve", ec(AlgECDHESA256KW, "P-521", x, y, ""), "want 66"},
		{"point off the curve", ec(AlgECDHESA256KW, "P-256", y, x, ""), "not on P-256"},
		{"point at infinity", ec(AlgECDHESA256KW, "P-256", zero32, zero32, ""), "not on P-256"},
		{"padded base64", ec(AlgECDHESA256KW, "P-256", x+"=", y, ""), "canonical"},
		{"line break in base64", ec(AlgECDHESA256KW, "P-256", x[:10]+`\n`+x[10:], y, ""), "canonical"},
		{"trailing bits in base64", ec(AlgECDHESA256KW, "P-256", x[:42]+"5", y, ""), "canonical"},
		{"standard alphabet", ec(AlgECDHESA256KW, "P-256", "+"+x[1:], y, ""), "canonical"},
		{"short coordinate", ec(AlgECDHESA256KW, "P-256", x[:40], y, ""), "x is 30 bytes"},
		{"RSA 2047 bits", rsaText(short, "AQAB"), "2047 bits"},
		{"RSA 8193 bits", rsaText(new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 8192), big.NewInt(1)), "AQAB"), "8193 bits"},
		{"RSA even modulus", rsaText(new(big.Int).Lsh(n, 1), "AQAB"), "even"},
		{"RSA exponent 3", rsaText(n, "Aw"), "exponent 3"},
		{"RSA exponent 1", rsaText(n, "AQ"), "exponent 1"},
		{"RSA even exponent", rsaText(n, "AQAC"), "exponent 65538"},
		{"RSA exponent of 64 bits", rsaText(n, "__________8"), "64 bits"},
		{"RSA exponent with leading zero", rsaText(n, "AAEAAQ"), "minimal"},
		{"RSA empty exponent", rsaText(n, ""), "minimal"},
		{"null coordinate", strings.Replace(ec(AlgECDHESA256KW, "P-256", x, y, ""), `"`+y+`"`, "null", 1), "missing"},
		{"number as coordinate", strings.Replace(ec(AlgECDHESA256KW, "P-256", x, y, ""), `"`+y+`"`, "7", 1), "not a string"},
		{"array", `[]`, "not a JSON object"},
		{"nothing", ``, "not a JSON object"},
		{"two values", rfc7517Key + `{}`, "malformed"},
		{"huge", `{"kty":"` + strings.Repeat("E", MaxJWKSize) + `"}`, "at most"},
	} {
		_, err := ParseJWK([]byte(tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestNewJWKRefuses(t *testing.T) {
	priv, err := ecdh.P384().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewECJWK(priv.PublicKey()); err == nil {
		t.Error("P-384 accepted")
	}
	if _, err := NewECJWK(nil); err == nil {
		t.Error("nil EC key accepted")
	}
	if _, err := NewRSAJWK(&rsa.PublicKey{}); err == nil {
		t.Error("empty RSA key accepted")
	}
}
