// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/ecdh"
	"errors"
	"fmt"
)

// EncA256GCM is the only content encryption of the KBS protocol.
const EncA256GCM = "A256GCM"

const (
	// MaxSecretSize is the largest resource that travels in one answer.
	MaxSecretSize = 2 << 20

	// MaxJWESize is MaxSecretSize in base64url and the small members.
	MaxJWESize = MaxSecretSize*4/3 + 16<<10

	maxJWEHeader     = 8 << 10
	maxWrappedKey    = maxRSABits / 8
	jweIVSize        = 12
	jweTagSize       = 16
	jweContentKey    = 32
	minJWEWrappedKey = jweContentKey + 8 // RFC 3394 adds one block of 8 bytes
)

// JWE is an encrypted answer in the flattened serialization of RFC 7516 section
// 7.2.2, without the members that the protocol does not use.
type JWE struct {
	// Protected is the header as it came; these characters are authenticated.
	Protected    string
	EncryptedKey []byte
	IV           []byte // 12 bytes
	Ciphertext   []byte
	Tag          []byte // 16 bytes
}

// JWEHeader is the protected header.
type JWEHeader struct {
	Algorithm string          // AlgECDHESA256KW or AlgRSAOAEP256
	Ephemeral *ecdh.PublicKey // on its curve; nil unless AlgECDHESA256KW
}

// Encode returns the wire form.
func (j JWE) Encode() []byte {
	return fmt.Appendf(nil, `{"protected":"%s","encrypted_key":"%s","iv":"%s","ciphertext":"%s","tag":"%s"}`,
		j.Protected, encodeB64URL(j.EncryptedKey), encodeB64URL(j.IV), encodeB64URL(j.Ciphertext), encodeB64URL(j.Tag))
}

// ParseJWE reads the five members, all required and all in canonical base64url. An
// aad, header or recipients member changes what is authenticated and is refused as
// unknown.
func ParseJWE(raw []byte) (JWE, error) {
	r := readObject("JWE", raw, MaxJWESize)
	j := JWE{Protected: r.text("protected")}
	j.EncryptedKey = r.b64("encrypted_key")
	j.IV = r.b64("iv")
	j.Ciphertext = r.b64("ciphertext")
	j.Tag = r.b64("tag")
	if err := r.done(); err != nil {
		return JWE{}, err
	}
	switch {
	case len(j.IV) != jweIVSize:
		return JWE{}, fmt.Errorf("parsing JWE: iv is %d bytes, want %d", len(j.IV), jweIVSize)
	case len(j.Tag) != jweTagSize:
		return JWE{}, fmt.Errorf("parsing JWE: tag is %d bytes, want %d", len(j.Tag), jweTagSize)
	case len(j.EncryptedKey) < minJWEWrappedKey || len(j.EncryptedKey) > maxWrappedKey:
		return JWE{}, fmt.Errorf("parsing JWE: encrypted key is %d bytes, want %d to %d",
			len(j.EncryptedKey), minJWEWrappedKey, maxWrappedKey)
	}
	return j, nil
}

func (r *reader) b64(member string) []byte {
	text := r.text(member)
	if r.err != nil {
		return nil
	}
	b, err := decodeB64URL(text)
	r.wrap(member, err)
	return b
}

// Header reads the protected header: alg, enc and, for ECDH-ES, epk. Members such as
// zip, crit, apu or b64 change the meaning of the rest and are refused as unknown.
func (j JWE) Header() (JWEHeader, error) {
	if len(j.Protected) > maxJWEHeader {
		return JWEHeader{}, fmt.Errorf("parsing JWE header: %d characters, at most %d allowed", len(j.Protected), maxJWEHeader)
	}
	text, err := decodeB64URL(j.Protected)
	if err != nil {
		return JWEHeader{}, fmt.Errorf("parsing JWE header: %w", err)
	}
	r := readObject("JWE header", text, maxJWEHeader)
	h := JWEHeader{Algorithm: r.text("alg")}
	enc := r.text("enc")
	if r.err != nil {
		return JWEHeader{}, r.err
	}
	switch h.Algorithm {
	case AlgECDHESA256KW:
		epk := r.object("epk")
		if kty := epk.text("kty"); epk.err == nil && kty != "EC" {
			epk.fail("kty", "%s, want EC", quote(kty))
		}
		key, err := readECKey(epk)
		r.wrap("epk", err)
		h.Ephemeral = key.ec
	case AlgRSAOAEP256:
	default:
		return JWEHeader{}, fmt.Errorf("parsing JWE header: unsupported alg %s", quote(h.Algorithm))
	}
	if err := r.done(); err != nil {
		return JWEHeader{}, err
	}
	if enc != EncA256GCM {
		return JWEHeader{}, fmt.Errorf("parsing JWE header: unsupported enc %s", quote(enc))
	}
	return h, nil
}

// encode returns the protected member. Trustee's client computes the authenticated
// data from the header it parsed and printed again, so the order here is the order it
// prints: alg, enc, epk, and inside epk crv, kty, x, y.
func (h JWEHeader) encode() (string, error) {
	text := fmt.Appendf(nil, `{"alg":"%s","enc":"%s"`, h.Algorithm, EncA256GCM)
	if h.Algorithm == AlgECDHESA256KW {
		if h.Ephemeral == nil {
			return "", errors.New("no ephemeral key")
		}
		crv, x, y := coordinates(h.Ephemeral)
		text = fmt.Appendf(text, `,"epk":{"crv":"%s","kty":"EC","x":"%s","y":"%s"}`, crv, x, y)
	}
	return encodeB64URL(append(text, '}')), nil
}
