// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// signer is a key that signs as cosign does.
type signer struct {
	t   testing.TB
	key crypto.Signer
	// hash is what an RSA or ECDSA key signs under.
	hash crypto.Hash
	opts crypto.SignerOpts
}

func newECDSA(t testing.TB, curve elliptic.Curve, hash crypto.Hash) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{t, key, hash, hash}
}

func newRSA(t testing.TB, bits int) signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return signer{t, key, crypto.SHA256, crypto.SHA256}
}

func newEd25519(t testing.TB) signer {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signer{t, key, 0, crypto.Hash(0)}
}

// pem is the public key.
func (s signer) pem() string {
	der, err := x509.MarshalPKIXPublicKey(s.key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// base64 is the public key as keyData.
func (s signer) base64() string { return base64.StdEncoding.EncodeToString([]byte(s.pem())) }

// sign signs a payload.
func (s signer) sign(payload string) Signature {
	s.t.Helper()
	message := []byte(payload)
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(message)
		message = h.Sum(nil)
	}
	raw, err := s.key.Sign(rand.Reader, message, s.opts)
	if err != nil {
		s.t.Fatal(err)
	}
	return Signature{Payload: []byte(payload), Base64Signature: base64.StdEncoding.EncodeToString(raw)}
}

// payloadFor is a good payload.
func payloadFor(reference string, digest v1.Hash) string {
	return fmt.Sprintf(`{"critical":{"identity":{"docker-reference":%q},"image":{"docker-manifest-digest":%q},"type":%q},"optional":null}`,
		reference, digest, payloadType)
}

// digestOf makes a digest of a word.
func digestOf(word string) v1.Hash {
	return v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sha256.Sum256([]byte(word)))}
}

// registry holds signatures by digest.
type registry struct {
	signatures map[v1.Hash][]Signature
	messages   map[v1.Hash][][]byte
	fails      map[v1.Hash]error
	asked      int
}

func (r *registry) Messages(_ context.Context, digest v1.Hash) ([][]byte, error) {
	r.asked++
	return r.messages[digest], r.fails[digest]
}

func (r *registry) Signatures(_ context.Context, digest v1.Hash) ([]Signature, error) {
	r.asked++
	return r.signatures[digest], r.fails[digest]
}

// holding is a registry with signatures of one digest.
func holding(digest v1.Hash, signatures ...Signature) *registry {
	return &registry{signatures: map[v1.Hash][]Signature{digest: signatures}}
}

func subject(t testing.TB, reference string, digests ...v1.Hash) Subject {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	return Subject{Reference: ref, Digests: digests}
}

// policy parses a policy.json written with ' for ".
func policy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(strings.ReplaceAll(text, "'", `"`)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// keyFiles is a KeyReader.
type keyFiles map[string]string

func (k keyFiles) ReadKey(_ context.Context, path string) ([]byte, error) {
	text, ok := k[path]
	if !ok {
		return nil, fmt.Errorf("no key %q", path)
	}
	return []byte(text), nil
}
