// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/ecdh"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
)

// JWE key management algorithms (RFC 7518 section 4.1) that a TEE key can be for.
const (
	AlgECDHESA256KW = "ECDH-ES+A256KW"
	AlgRSAOAEP256   = "RSA-OAEP-256"
)

const (
	// MaxJWKSize holds an RSA-8192 key, whose modulus takes 1366 characters.
	MaxJWKSize = 4 << 10

	// minRSABits and maxRSABits bound what a relying party spends on one key:
	// below is breakable, above is a way to make it slow.
	minRSABits = 2048
	maxRSABits = 8192

	// Public exponents per FIPS 186-5 A.1.1 are odd and above 2^16; crypto/rsa takes
	// them up to 2^31-1.
	minRSAExponent = 1<<16 + 1
	maxRSAExponent = 1<<31 - 1
)

// JWK is a public TEE key with exactly the members that the KBS protocol hashes: an
// EC key on P-256 or P-521 or an RSA key. The zero value is no key.
type JWK struct {
	ec  *ecdh.PublicKey
	rsa *rsa.PublicKey
}

// curveName returns the RFC 7518 name and the coordinate width in bytes.
func curveName(c ecdh.Curve) (crv string, width int, ok bool) {
	switch c {
	case ecdh.P256():
		return "P-256", 32, true
	case ecdh.P521():
		return "P-521", 66, true
	}
	return "", 0, false
}

func curveOf(crv string) (ecdh.Curve, int, error) {
	switch crv {
	case "P-256":
		return ecdh.P256(), 32, nil
	case "P-521":
		return ecdh.P521(), 66, nil
	}
	return nil, 0, fmt.Errorf("unsupported curve %s", quote(crv))
}

// NewECJWK wraps a key on P-256 or P-521; other curves are refused.
func NewECJWK(pub *ecdh.PublicKey) (JWK, error) {
	if pub == nil {
		return JWK{}, errors.New("no EC key")
	}
	if _, _, ok := curveName(pub.Curve()); !ok {
		return JWK{}, fmt.Errorf("unsupported curve %v", pub.Curve())
	}
	return JWK{ec: pub}, nil
}

// NewRSAJWK wraps an RSA key of 2048 to 8192 bits with a sane exponent.
func NewRSAJWK(pub *rsa.PublicKey) (JWK, error) {
	if pub == nil || pub.N == nil {
		return JWK{}, errors.New("no RSA key")
	}
	if bits := pub.N.BitLen(); bits < minRSABits || bits > maxRSABits {
		return JWK{}, fmt.Errorf("RSA modulus is %d bits, want %d to %d", bits, minRSABits, maxRSABits)
	}
	if pub.N.Bit(0) == 0 {
		return JWK{}, errors.New("RSA modulus is even")
	}
	if pub.E < minRSAExponent || pub.E > maxRSAExponent || pub.E%2 == 0 {
		return JWK{}, fmt.Errorf("RSA exponent %d is not an odd number from %d to %d", pub.E, minRSAExponent, maxRSAExponent)
	}
	return JWK{rsa: pub}, nil
}

// ParseJWK reads {alg,crv,kty,x,y} or {alg,e,kty,n}. Any other member is refused,
// because the hash over the key would not cover it. The point is on its curve.
func ParseJWK(raw []byte) (JWK, error) {
	r := readObject("JWK", raw, MaxJWKSize)
	kty, alg := r.text("kty"), r.text("alg")
	if r.err != nil {
		return JWK{}, r.err
	}
	var key JWK
	var err error
	switch {
	case kty == "EC" && alg == AlgECDHESA256KW:
		key, err = readECKey(r)
	case kty == "RSA" && alg == AlgRSAOAEP256:
		key, err = readRSAKey(r)
	default:
		err = fmt.Errorf("parsing JWK: unsupported kty %s with alg %s", quote(kty), quote(alg))
	}
	if err != nil {
		return JWK{}, err
	}
	return key, nil
}

// readECKey takes crv, x and y, which must be all that is left.
func readECKey(r *reader) (JWK, error) {
	crv, xText, yText := r.text("crv"), r.text("x"), r.text("y")
	if err := r.done(); err != nil {
		return JWK{}, err
	}
	curve, width, err := curveOf(crv)
	if err != nil {
		return JWK{}, fmt.Errorf("parsing %s: %w", r.what, err)
	}
	// RFC 7518 section 6.2.1.2: coordinates have the full width of the curve.
	point := []byte{4}
	for _, c := range []struct{ name, text string }{{"x", xText}, {"y", yText}} {
		b, err := decodeB64URL(c.text)
		if err != nil {
			return JWK{}, fmt.Errorf("parsing %s: coordinate %s: %w", r.what, c.name, err)
		}
		if len(b) != width {
			return JWK{}, fmt.Errorf("parsing %s: coordinate %s is %d bytes, want %d", r.what, c.name, len(b), width)
		}
		point = append(point, b...)
	}
	pub, err := curve.NewPublicKey(point)
	if err != nil {
		return JWK{}, fmt.Errorf("parsing %s: point is not on %s", r.what, crv)
	}
	return JWK{ec: pub}, nil
}

// readRSAKey takes n and e, which must be all that is left.
func readRSAKey(r *reader) (JWK, error) {
	nText, eText := r.text("n"), r.text("e")
	if err := r.done(); err != nil {
		return JWK{}, err
	}
	n, err := readRSAInt("n", nText)
	if err != nil {
		return JWK{}, err
	}
	e, err := readRSAInt("e", eText)
	if err != nil {
		return JWK{}, err
	}
	if !e.IsInt64() || e.Int64() > maxRSAExponent {
		return JWK{}, fmt.Errorf("parsing JWK: RSA exponent is %d bits, want at most 31", e.BitLen())
	}
	key, err := NewRSAJWK(&rsa.PublicKey{N: n, E: int(e.Int64())})
	if err != nil {
		return JWK{}, fmt.Errorf("parsing JWK: %w", err)
	}
	return key, nil
}

// readRSAInt decodes a Base64urlUInt of RFC 7518 section 2: minimal, big-endian.
func readRSAInt(member, text string) (*big.Int, error) {
	b, err := decodeB64URL(text)
	if err != nil {
		return nil, fmt.Errorf("parsing JWK: member %q: %w", member, err)
	}
	if len(b) == 0 || b[0] == 0 {
		return nil, fmt.Errorf("parsing JWK: member %q: not a minimal big-endian integer", member)
	}
	return new(big.Int).SetBytes(b), nil
}

// IsZero reports whether k is no key.
func (k JWK) IsZero() bool { return k.ec == nil && k.rsa == nil }

// Algorithm returns AlgECDHESA256KW, AlgRSAOAEP256, or "" for the zero value.
func (k JWK) Algorithm() string {
	switch {
	case k.ec != nil:
		return AlgECDHESA256KW
	case k.rsa != nil:
		return AlgRSAOAEP256
	}
	return ""
}

// EC returns the key when it is an EC key, else nil.
func (k JWK) EC() *ecdh.PublicKey { return k.ec }

// RSA returns the key when it is an RSA key, else nil.
func (k JWK) RSA() *rsa.PublicKey { return k.rsa }

// Equal reports whether both are the same key. Two zero values are not.
func (k JWK) Equal(other JWK) bool {
	switch {
	case k.ec != nil && other.ec != nil:
		return k.ec.Equal(other.ec)
	case k.rsa != nil && other.rsa != nil:
		return k.rsa.Equal(other.rsa)
	}
	return false
}

// Canonical returns the RFC 8785 form, which is also what goes on the wire. It
// returns nil for the zero value.
func (k JWK) Canonical() []byte {
	switch {
	case k.ec != nil:
		crv, x, y := coordinates(k.ec)
		return fmt.Appendf(nil, `{"alg":"%s","crv":"%s","kty":"EC","x":"%s","y":"%s"}`, AlgECDHESA256KW, crv, x, y)
	case k.rsa != nil:
		e := big.NewInt(int64(k.rsa.E)).Bytes()
		return fmt.Appendf(nil, `{"alg":"%s","e":"%s","kty":"RSA","n":"%s"}`, AlgRSAOAEP256, encodeB64URL(e), encodeB64URL(k.rsa.N.Bytes()))
	}
	return nil
}

// coordinates returns the members of an EC key, the coordinates as base64url.
func coordinates(pub *ecdh.PublicKey) (crv, x, y string) {
	crv, width, _ := curveName(pub.Curve())
	point := pub.Bytes() // 0x04 ‖ x ‖ y
	return crv, encodeB64URL(point[1 : 1+width]), encodeB64URL(point[1+width:])
}
