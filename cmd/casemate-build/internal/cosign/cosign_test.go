// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/partial"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	private, _, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestGenerateKey(t *testing.T) {
	private, public, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParsePrivateKey(private, []byte("ignored"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := MarshalPublicKey(&key.PublicKey); err != nil || !bytes.Equal(got, public) {
		t.Errorf("got %s, %v, want %s", got, err, public)
	}
	if other, _, err := GenerateKey(); err != nil || bytes.Equal(other, private) {
		t.Errorf("the same key twice, %v", err)
	}
}

func TestCosignProtectedKey(t *testing.T) {
	text := testFile(t, "cosign-protected.key")
	key, err := ParsePrivateKey(text, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := MarshalPublicKey(&key.PublicKey); err != nil || string(bytes.TrimSpace(got)) != string(bytes.TrimSpace(testFile(t, "cosign-protected.pub"))) {
		t.Errorf("got %s, %v", got, err)
	}
	for _, wrong := range []string{"", "Secret", "secret "} {
		if _, err := ParsePrivateKey(text, []byte(wrong)); !errors.Is(err, ErrPassphrase) {
			t.Errorf("passphrase %q: got %v, want %v", wrong, err, ErrPassphrase)
		}
	}
}

func encodePKCS8(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestParsePrivateKeyRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	protected := func(old, new string) string {
		block, _ := pem.Decode(testFile(t, "cosign-protected.key"))
		altered := strings.Replace(string(block.Bytes), old, new, 1)
		if altered == string(block.Bytes) {
			t.Fatalf("%q alters nothing", old)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: []byte(altered)}))
	}
	for name, c := range map[string]struct{ text, want string }{
		"empty":             {"", "no PEM block"},
		"no PEM":            {"hello", "no PEM block"},
		"public key":        {string(testFile(t, "cosign-protected.pub")), "PUBLIC KEY"},
		"P-384":             {encodePKCS8(t, p384), "P-256"},
		"Ed25519":           {encodePKCS8(t, ed), "P-256"},
		"SEC 1":             {"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "openssl pkcs8"},
		"protected PKCS 8":  {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "password"},
		"garbage inside":    {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "no PKCS #8 key"},
		"too long":          {strings.Repeat(" ", MaxKeyBytes+1), "at most"},
		"scrypt of 64 GiB":  {protected(`"N":65536`, `"N":67108864`), "scrypt with N="},
		"scrypt of nothing": {protected(`"N":65536`, `"N":2`), "scrypt with N="},
		"scrypt N uneven":   {protected(`"N":65536`, `"N":65535`), "scrypt with N="},
		"scrypt with r":     {protected(`"r":8`, `"r":1048576`), "scrypt with N="},
		"scrypt with p":     {protected(`"p":1`, `"p":1048576`), "scrypt with N="},
		"another kdf":       {protected(`"scrypt"`, `"none"`), "want scrypt"},
		"another cipher":    {protected(`"nacl/secretbox"`, `"none"`), "want scrypt"},
		"short nonce":       {protected(`"nonce":"`, `"nonce":"AAAA","n":"`), "unknown"},
		"N twice":           {protected(`"N":65536`, `"N":65536,"N":16384`), "duplicate"},
	} {
		if _, err := ParsePrivateKey([]byte(c.text), []byte("secret")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}

func FuzzParsePrivateKey(f *testing.F) {
	f.Add(testFile(f, "cosign-protected.key"))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		// Without a passphrase: deriving keys would slow the search down.
		key, err := ParsePrivateKey(text, nil)
		if err == nil && key.Curve != elliptic.P256() {
			t.Error("accepted a key on another curve")
		}
	})
}

func someDigest() v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("ab", 32)} }

// The exact bytes that cosign signs.
func TestPayload(t *testing.T) {
	got, err := Payload("registry.example/app", someDigest())
	want := `{"critical":{"identity":{"docker-reference":"registry.example/app"},"image":{"docker-manifest-digest":"sha256:` +
		strings.Repeat("ab", 32) + `"},"type":"cosign container image signature"},"optional":null}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if got, want := Tag(someDigest()), "sha256-"+strings.Repeat("ab", 32)+".sig"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func contentOf(t *testing.T, img v1.Image) *image.Content {
	t.Helper()
	desc, err := partial.Descriptor(img)
	if err != nil {
		t.Fatal(err)
	}
	return &image.Content{Image: img, Descriptor: *desc}
}

// verify counts the layers of img that are valid signatures by key.
func verify(t *testing.T, img v1.Image, key *ecdsa.PublicKey) int {
	t.Helper()
	m, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	valid := 0
	for _, desc := range m.Layers {
		layer, err := img.LayerByDigest(desc.Digest)
		if err != nil {
			t.Fatal(err)
		}
		blob, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		payload, err := io.ReadAll(image.Verify(blob, desc))
		if err != nil {
			t.Fatal(err)
		}
		signature, err := base64.StdEncoding.DecodeString(desc.Annotations["dev.cosignproject.cosign/signature"])
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.Sum256(payload)
		if desc.MediaType == "application/vnd.dev.cosign.simplesigning.v1+json" && ecdsa.VerifyASN1(key, hash[:], signature) {
			valid++
		}
	}
	return valid
}

func TestAttach(t *testing.T) {
	payload, err := Payload("registry.example/app", someDigest())
	if err != nil {
		t.Fatal(err)
	}
	other, err := Payload("mirror.example/app", someDigest())
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := newKey(t), newKey(t)
	var base *image.Content
	for i, step := range []struct {
		payload        []byte
		key            *ecdsa.PrivateKey
		added          bool
		byAlice, byBob int
	}{
		{payload, alice, true, 1, 0},
		{payload, alice, false, 1, 0}, // the same again
		{payload, bob, true, 1, 1},    // the same payload, another key
		{other, alice, true, 2, 1},    // another payload, the same key
		{other, alice, false, 2, 1},
	} {
		a, err := Attach(base, step.payload, step.key)
		if err != nil {
			t.Fatal(err)
		}
		if a.Added != step.added || a.Count != step.byAlice+step.byBob {
			t.Errorf("step %d: got %+v, want %+v", i, a, step)
		}
		if x, y := verify(t, a.Image, &alice.PublicKey), verify(t, a.Image, &bob.PublicKey); x != step.byAlice || y != step.byBob {
			t.Errorf("step %d: %d and %d valid signatures, want %d and %d", i, x, y, step.byAlice, step.byBob)
		}
		base = contentOf(t, a.Image)
	}
}

func TestAttachRefuses(t *testing.T) {
	key := newKey(t)
	index, err := partial.Descriptor(empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(&image.Content{Index: empty.Index, Descriptor: *index}, []byte("x"), key); err == nil {
		t.Error("signatures in an index: want an error")
	}
	a, err := Attach(nil, []byte("x"), key)
	if err != nil {
		t.Fatal(err)
	}
	base := contentOf(t, a.Image)
	base.Descriptor.Digest = someDigest()
	if _, err := Attach(base, []byte("y"), key); err == nil {
		t.Error("signatures with another digest than named: want an error")
	}
}
