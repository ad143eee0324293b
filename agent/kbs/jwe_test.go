// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/casemate/casemate/agent/evidence"
)

// publicOf converts a key for go-jose, which knows EC keys only in ecdsa's form.
func publicOf(t testing.TB, k teeKey) any {
	t.Helper()
	if k.rsa != nil {
		return &k.rsa.PublicKey
	}
	der, err := x509.MarshalPKIXPublicKey(k.ec.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	pub, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return pub.(*ecdsa.PublicKey)
}

// joseSeal encrypts with go-jose, whose header has the same members in another order.
func joseSeal(t testing.TB, k teeKey, plain []byte, change func(*jose.EncrypterOptions)) []byte {
	t.Helper()
	alg := jose.ECDH_ES_A256KW
	if k.rsa != nil {
		alg = jose.RSA_OAEP_256
	}
	options := &jose.EncrypterOptions{}
	if change != nil {
		change(options)
	}
	encrypter, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: alg, Key: publicOf(t, k)}, options)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := encrypter.Encrypt(plain)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(sealed.FullSerialize())
}

func mustTEEKey(t testing.TB, algorithm KeyAlgorithm) teeKey {
	t.Helper()
	k, err := newTEEKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestOpenWhatAnotherImplementationSealed(t *testing.T) {
	for _, algorithm := range []KeyAlgorithm{ECP256, ECP521, RSA2048} {
		k := mustTEEKey(t, algorithm)
		for _, plain := range [][]byte{{}, []byte("k"), bytes.Repeat([]byte{0, 0xff}, 5000)} {
			got, err := k.open(joseSeal(t, k, plain, nil))
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%s: got %d bytes, want %d (%v)", algorithm, len(got), len(plain), err)
			}
		}
		other := mustTEEKey(t, algorithm)
		if _, err := other.open(joseSeal(t, k, []byte("k"), nil)); !errors.Is(err, errNotForUs) {
			t.Errorf("%s: another key: %v", algorithm, err)
		}
		compressed := joseSeal(t, k, []byte("k"), func(o *jose.EncrypterOptions) { o.Compression = jose.DEFLATE })
		if _, err := k.open(compressed); err == nil || !strings.Contains(err.Error(), `unknown member "zip"`) {
			t.Errorf("%s: compressed: %v", algorithm, err)
		}
		typed := joseSeal(t, k, []byte("k"), func(o *jose.EncrypterOptions) { o.WithContentType("JWT") })
		if _, err := k.open(typed); err == nil || !strings.Contains(err.Error(), `unknown member "cty"`) {
			t.Errorf("%s: nested: %v", algorithm, err)
		}
	}
}

// Every bit of every member is covered by a check.
func TestOpenRefusesEveryFlippedByte(t *testing.T) {
	k := mustTEEKey(t, ECP256)
	public, err := k.public()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := evidence.SealJWE(public, []byte("a secret"))
	if err != nil {
		t.Fatal(err)
	}
	raw := sealed.Encode()
	for i := range raw {
		flipped := bytes.Clone(raw)
		flipped[i] ^= 1
		if got, err := k.open(flipped); err == nil {
			t.Fatalf("byte %d (%q): opened as %q", i, raw[i], got)
		}
	}
}

// The vector of RFC 3394 section 4.6.
func TestUnwrapKeyVector(t *testing.T) {
	kek := unhex(t, "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	wrapped := unhex(t, "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
	want := unhex(t, "00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
	if got, err := unwrapKey(kek, wrapped); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x (%v)", got, want, err)
	}
	for i := range wrapped {
		flipped := bytes.Clone(wrapped)
		flipped[i] ^= 0x80
		if _, err := unwrapKey(kek, flipped); !errors.Is(err, errNotForUs) {
			t.Errorf("byte %d flipped: %v", i, err)
		}
	}
	for _, size := range []int{0, 8, 16, 23, 41} {
		if _, err := unwrapKey(kek, make([]byte, size)); err == nil {
			t.Errorf("%d bytes unwrapped", size)
		}
	}
}

// The key agreement of RFC 7518 appendix C differs from ours in algorithm and length, so
// the KDF is checked through go-jose above; here is only that a shorter content key is
// refused even when it is wrapped properly.
func TestContentKeyOfAnotherSizeIsRefused(t *testing.T) {
	k := mustTEEKey(t, RSA2048)
	sealed := joseSeal(t, k, []byte("k"), nil)
	j, err := evidence.ParseJWE(sealed)
	if err != nil {
		t.Fatal(err)
	}
	j.EncryptedKey = j.EncryptedKey[:len(j.EncryptedKey)-1]
	if _, err := k.open(j.Encode()); !errors.Is(err, errNotForUs) {
		t.Errorf("short RSA ciphertext: %v", err)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzOpen(f *testing.F) {
	k := mustTEEKey(f, ECP256)
	f.Add(joseSeal(f, k, []byte("seed"), nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got, err := k.open(raw); err == nil && string(got) != "seed" {
			t.Fatalf("opened %q", got)
		}
	})
}
