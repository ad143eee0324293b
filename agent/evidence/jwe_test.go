// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/x509"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// ecdsaOf converts a key for go-jose, which knows EC keys only in that form.
func ecdsaOf(t testing.TB, priv *ecdh.PrivateKey) *ecdsa.PrivateKey {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

func TestSealedJWEOpensElsewhere(t *testing.T) {
	p256, p256JWK := newECKey(t, ecdh.P256())
	p521, p521JWK := newECKey(t, ecdh.P521())
	rsaPriv, rsaJWK := newRSAKey(t)
	for _, tc := range []struct {
		name string
		key  JWK
		priv any
		alg  jose.KeyAlgorithm
	}{
		{"P-256", p256JWK, ecdsaOf(t, p256), jose.ECDH_ES_A256KW},
		{"P-521", p521JWK, ecdsaOf(t, p521), jose.ECDH_ES_A256KW},
		{"RSA", rsaJWK, rsaPriv, jose.RSA_OAEP_256},
	} {
		for _, secret := range [][]byte{{}, []byte("k"), bytes.Repeat([]byte{0, 0xff}, 5000)} {
			sealed, err := SealJWE(tc.key, secret)
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			text := sealed.Encode()
			if _, err := ParseJWE(text); err != nil {
				t.Errorf("%s: own parser: %v", tc.name, err)
			}
			other, err := jose.ParseEncryptedJSON(string(text), []jose.KeyAlgorithm{tc.alg}, []jose.ContentEncryption{jose.A256GCM})
			if err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			got, err := other.Decrypt(tc.priv)
			if err != nil || !bytes.Equal(got, secret) {
				t.Errorf("%s: go-jose opened %q, %v", tc.name, got, err)
			}
		}
	}
	if _, err := SealJWE(JWK{}, nil); err == nil {
		t.Error("sealed for no key")
	}
	if _, err := SealJWE(p256JWK, make([]byte, MaxSecretSize+1)); err == nil {
		t.Error("sealed a secret over the cap")
	}
}

// Trustee's client prints the header it parsed again to get the authenticated data.
func TestJWEHeaderOrder(t *testing.T) {
	priv, _ := newECKey(t, ecdh.P256())
	text, err := JWEHeader{Algorithm: AlgECDHESA256KW, Ephemeral: priv.PublicKey()}.encode()
	if err != nil {
		t.Fatal(err)
	}
	plain, err := decodeB64URL(text)
	if err != nil {
		t.Fatal(err)
	}
	crv, x, y := coordinates(priv.PublicKey())
	want := `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":{"crv":"` + crv + `","kty":"EC","x":"` + x + `","y":"` + y + `"}}`
	if string(plain) != want {
		t.Errorf("header\n got %s\nwant %s", plain, want)
	}
}

func TestParseJWERefuses(t *testing.T) {
	_, key := newECKey(t, ecdh.P256())
	sealed, err := SealJWE(key, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	ok := string(sealed.Encode())
	swap := func(from, to string) string { return strings.Replace(ok, from, to, 1) }
	wantRefused(t, ParseJWE, [][3]string{
		{"aad", swap(`{`, `{"aad":"AA",`), `unknown member "aad"`},
		{"unprotected header", swap(`{`, `{"header":{"zip":"DEF"},`), `unknown member "header"`},
		{"recipients", swap(`{`, `{"recipients":[],`), `unknown member "recipients"`},
		{"two tags", swap(`{`, `{"tag":"AAAA",`), "occurs twice"},
		{"no tag", swap(`"tag"`, `"tagg"`), "missing"},
		{"padded", swap(`"iv":"`, `"iv":"AAAA====`), "canonical"},
		{"iv of 16", swap(encodeB64URL(sealed.IV), encodeB64URL(make([]byte, 16))), "iv is 16 bytes"},
		{"tag of 12", swap(encodeB64URL(sealed.Tag), encodeB64URL(make([]byte, 12))), "tag is 12 bytes"},
		{"short wrapped key", swap(encodeB64URL(sealed.EncryptedKey), encodeB64URL(make([]byte, 24))), "encrypted key is 24 bytes"},
		{"long wrapped key", swap(encodeB64URL(sealed.EncryptedKey), encodeB64URL(make([]byte, 1025))), "encrypted key is 1025 bytes"},
		{"compact form", sealed.Protected + "....", "not a JSON object"},
		{"too big", ok + strings.Repeat(" ", MaxJWESize), "at most"},
	})
}

func TestJWEHeaderRefuses(t *testing.T) {
	priv, _ := newECKey(t, ecdh.P256())
	crv, x, y := coordinates(priv.PublicKey())
	epk := `{"crv":"` + crv + `","kty":"EC","x":"` + x + `","y":"` + y + `"}`
	header := func(text string) (JWEHeader, error) { return JWE{Protected: encodeB64URL([]byte(text))}.Header() }
	if _, err := header(`{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + epk + `}`); err != nil {
		t.Fatal(err)
	}
	for _, tc := range [][3]string{
		{"compressed", `{"alg":"RSA-OAEP-256","enc":"A256GCM","zip":"DEF"}`, `unknown member "zip"`},
		{"critical extension", `{"alg":"RSA-OAEP-256","enc":"A256GCM","crit":["b64"],"b64":false}`, "unknown member"},
		{"party info", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","apu":"AA","epk":` + epk + `}`, `unknown member "apu"`},
		{"epk with RSA", `{"alg":"RSA-OAEP-256","enc":"A256GCM","epk":` + epk + `}`, `unknown member "epk"`},
		{"no epk", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM"}`, "missing"},
		{"epk off the curve", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + strings.Replace(epk, x, y, 1) + `}`, "not on P-256"},
		{"private epk", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + strings.Replace(epk, `{`, `{"d":"AA",`, 1) + `}`, `unknown member "d"`},
		{"epk of another kind", `{"alg":"ECDH-ES+A256KW","enc":"A256GCM","epk":` + strings.Replace(epk, `"EC"`, `"OKP"`, 1) + `}`, "want EC"},
		{"no key management", `{"alg":"dir","enc":"A256GCM"}`, `unsupported alg "dir"`},
		{"padding oracle", `{"alg":"RSA1_5","enc":"A256GCM"}`, `unsupported alg "RSA1_5"`},
		{"CBC", `{"alg":"RSA-OAEP-256","enc":"A256CBC-HS512"}`, "unsupported enc"},
		{"shorter key", `{"alg":"RSA-OAEP-256","enc":"A128GCM"}`, "unsupported enc"},
		{"two algs", `{"alg":"dir","alg":"RSA-OAEP-256","enc":"A256GCM"}`, "occurs twice"},
	} {
		if h, err := header(tc[1]); err == nil || !strings.Contains(err.Error(), tc[2]) {
			t.Errorf("%s: got %+v, error %v, want %q", tc[0], h, err, tc[2])
		}
	}
	if _, err := (JWE{Protected: "e30="}).Header(); err == nil {
		t.Error("padded header accepted")
	}
	if _, err := (JWE{Protected: strings.Repeat("A", maxJWEHeader+1)}).Header(); err == nil {
		t.Error("huge header accepted")
	}
}

// The vector of RFC 3394 section 4.6.
func TestWrapKeyVector(t *testing.T) {
	kek := make([]byte, 32)
	key := make([]byte, 32)
	for i := range 32 {
		kek[i] = byte(i)
		if key[i] = byte(i * 0x11); i >= 16 {
			key[i] = byte(i - 16)
		}
	}
	got, err := wrapKey(kek, key)
	want := "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"
	if err != nil || encodeHex(got) != want {
		t.Errorf("got %s, want %s (%v)", encodeHex(got), want, err)
	}
}
