// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/imagepull/trust"
)

// referrer is a manifest around a blob, and its entry in an index.
func (r *registryFake) referrer(artifactType, layerType string, blob []byte, layers int) (manifest []byte, entry string) {
	r.putBlob(blob)
	layer := fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, layerType, digestOf(blob), len(blob))
	manifest = fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":{"mediaType":%q,"digest":%q,"size":2},"layers":[%s]}`,
		typeOCIManifest, artifactType, typeEmpty, digestOf([]byte("{}")), strings.Join(slices.Repeat([]string{layer}, layers), ","))
	r.putManifest(manifest)
	return manifest, indexEntry(manifest, artifactType)
}

func indexEntry(manifest []byte, artifactType string) string {
	return fmt.Sprintf(`{"mediaType":%q,"artifactType":%q,"digest":%q,"size":%d}`, typeOCIManifest, artifactType, digestOf(manifest), len(manifest))
}

func indexOf(entries ...string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"manifests":[%s]}`, typeOCIIndex, strings.Join(entries, ","))
}

// answerReferrers makes the registry answer the referrers API for a digest.
func (r *registryFake) answerReferrers(digest string, status int, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/app/referrers/"+digest) {
			return false
		}
		w.WriteHeader(status)
		w.Write(body)
		return true
	}
}

// TestBundles: sigstore bundles are found by the API and by the tag, and nothing else is taken for one.
func TestBundles(t *testing.T) {
	image := []byte(`{"an":"image"}`)
	digest, tag := digestOf(image), strings.Replace(digestOf(image), ":", "-", 1)
	bundle, other := []byte(`{"a":"bundle"}`), []byte(`{"another":"bundle"}`)
	type result struct {
		found []string
		err   error
	}
	tests := []struct {
		name string
		set  func(r *registryFake, good, second string)
		want result
	}{
		{"no referrers", func(*registryFake, string, string) {}, result{}},
		{"API, none", func(r *registryFake, _, _ string) { r.answerReferrers(digest, 200, indexOf()) }, result{}},
		{"API", func(r *registryFake, good, second string) { r.answerReferrers(digest, 200, indexOf(good, second)) },
			result{found: []string{string(bundle), string(other)}}},
		{"API, the tag is not asked", func(r *registryFake, good, second string) {
			r.answerReferrers(digest, 200, indexOf(good))
			r.putManifest(indexOf(second), tag)
		}, result{found: []string{string(bundle)}}},
		{"tag", func(r *registryFake, good, _ string) { r.putManifest(indexOf(good), tag) }, result{found: []string{string(bundle)}}},
		{"type left out of the index", func(r *registryFake, good, _ string) {
			r.putManifest(indexOf(strings.Replace(good, `"artifactType":"`+typeSigstoreBundle+`",`, "", 1)), tag)
		}, result{found: []string{string(bundle)}}},
		{"config's type in the index", func(r *registryFake, good, _ string) {
			r.putManifest(indexOf(strings.Replace(good, typeSigstoreBundle, typeEmpty, 1)), tag)
		}, result{found: []string{string(bundle)}}},
		{"artifacts of other kinds", func(r *registryFake, good, _ string) {
			_, sbom := r.referrer("application/spdx+json", "application/spdx+json", []byte("{}"), 1)
			_, hidden := r.referrer("application/spdx+json", typeSigstoreBundle, []byte("{}"), 1)
			hidden = strings.Replace(hidden, "application/spdx+json", "", 1)
			r.putManifest(indexOf(sbom, hidden, good), tag)
		}, result{found: []string{string(bundle)}}},

		{"API forbidden", func(r *registryFake, _, _ string) { r.answerReferrers(digest, 403, nil) }, result{err: ErrUnauthorized}},
		{"API broken", func(r *registryFake, _, _ string) { r.answerReferrers(digest, 500, nil) }, result{err: ErrRegistry}},
		{"no JSON", func(r *registryFake, _, _ string) { r.answerReferrers(digest, 200, []byte("<html>")) }, result{err: ErrManifest}},
		{"members twice", func(r *registryFake, good, _ string) {
			r.answerReferrers(digest, 200, []byte(strings.Replace(string(indexOf(good)), "{", `{"manifests":[],`, 1)))
		}, result{err: ErrManifest}},
		{"no index", func(r *registryFake, _, _ string) {
			m, _ := r.referrer(typeSigstoreBundle, typeSigstoreBundle, bundle, 1)
			r.answerReferrers(digest, 200, []byte(strings.Replace(string(m), typeEmpty, typeOCIConfig, 1)))
		}, result{err: ErrUnsupported}},
		{"index bomb", func(r *registryFake, good, _ string) {
			r.answerReferrers(digest, 200, indexOf(slices.Repeat([]string{good}, maxEntries+1)...))
		}, result{err: ErrTooLarge}},
		{"bundles without end", func(r *registryFake, good, _ string) {
			r.answerReferrers(digest, 200, indexOf(slices.Repeat([]string{good}, maxBundles+1)...))
		}, result{err: ErrTooLarge}},
		{"endless index", func(r *registryFake, _, _ string) {
			r.answerReferrers(digest, 200, []byte(strings.Repeat(" ", maxDocument+1)))
		}, result{err: ErrTooLarge}},
		{"manifest is missing, another is there", func(r *registryFake, good, _ string) {
			r.putManifest(indexOf(indexEntry([]byte("gone"), typeSigstoreBundle), good), tag)
		}, result{[]string{string(bundle)}, ErrNotFound}},
		{"manifest replaced", func(r *registryFake, good, _ string) {
			m, entry := r.referrer(typeSigstoreBundle, typeSigstoreBundle, []byte("x"), 1)
			r.manifests[digestOf(m)] = append(m, ' ')
			r.putManifest(indexOf(entry, good), tag)
		}, result{[]string{string(bundle)}, ErrDigest}},
		{"bundle replaced", func(r *registryFake, good, _ string) {
			r.blobs[digestOf(bundle)] = []byte(`{"A":"bundle"}`)
			r.putManifest(indexOf(good), tag)
		}, result{err: ErrDigest}},
		{"bundle over its limit", func(r *registryFake, good, _ string) {
			_, large := r.referrer(typeSigstoreBundle, typeSigstoreBundle, make([]byte, maxSigstoreBundle+1), 1)
			r.putManifest(indexOf(large, good), tag)
		}, result{[]string{string(bundle)}, ErrTooLarge}},
		{"manifest over its limit", func(r *registryFake, good, _ string) {
			r.putManifest(indexOf(indexEntry(make([]byte, maxPayload+1), typeSigstoreBundle), good), tag)
		}, result{[]string{string(bundle)}, ErrTooLarge}},
		{"two layers", func(r *registryFake, _, _ string) {
			_, entry := r.referrer(typeSigstoreBundle, typeSigstoreBundle, bundle, 2)
			r.putManifest(indexOf(entry), tag)
		}, result{err: ErrManifest}},
		{"layer of another type", func(r *registryFake, _, _ string) {
			_, entry := r.referrer(typeSigstoreBundle, "text/plain", bundle, 1)
			r.putManifest(indexOf(entry), tag)
		}, result{err: ErrManifest}},
		{"an index as a referrer", func(r *registryFake, good, _ string) {
			inner := indexOf(good)
			r.putManifest(inner)
			r.putManifest(indexOf(indexEntry(inner, typeSigstoreBundle)), tag)
		}, result{err: ErrManifest}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistryFake(t)
			_, good := r.referrer(typeSigstoreBundle, typeSigstoreBundle, bundle, 1)
			_, second := r.referrer(typeSigstoreBundle, typeSigstoreBundle, other, 1)
			tt.set(r, good, second)
			f := fetcher{src: testSource(t, r, "v1"), stall: time.Second, retrier: retrier{attempts: 1}}
			got, err := (signatures{fetcher: f}).Signatures(t.Context(), hashOf(image))
			var found []string
			for _, s := range got {
				found = append(found, string(s.Bundle))
			}
			if !slices.Equal(found, tt.want.found) || !errors.Is(err, tt.want.err) {
				t.Errorf("got %q, %v, want %q, %v", found, err, tt.want.found, tt.want.err)
			}
		})
	}
}

// TestSignatureAnnotations: what cosign 2 writes beside a signature reaches the policy.
func TestSignatureAnnotations(t *testing.T) {
	r, image, payload := newRegistryFake(t), []byte(`{"an":"image"}`), []byte(`{}`)
	r.putBlob(payload)
	r.putManifest(fmt.Appendf(nil, `{"schemaVersion":2,"layers":[{"mediaType":%q,"digest":%q,"size":2,"annotations":{%q:"s",%q:"c",%q:"i",%q:"l"}}]}`,
		typeSimpleSigning, digestOf(payload), annotationSignature, annotationCert, annotationChain, annotationRekor),
		strings.Replace(digestOf(image), ":", "-", 1)+".sig")
	r.answerReferrers(digestOf(image), 500, nil) // does not hide the tag's
	f := fetcher{src: testSource(t, r, "v1"), stall: time.Second, retrier: retrier{attempts: 1}}
	got, err := (signatures{fetcher: f}).Signatures(t.Context(), hashOf(image))
	if !errors.Is(err, ErrRegistry) || len(got) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
	if s := got[0]; s.Base64Signature != "s" || s.Certificate != "c" || s.Chain != "i" || s.RekorBundle != "l" {
		t.Errorf("got %+v", s)
	}
}

// A bundle as cosign 3 attaches it admits an image by its key, and only where the policy asks for no name.
func TestPullBundle(t *testing.T) {
	r := newRegistryFake(t)
	manifest := r.put(t, "v1", someImage(t))
	r.put(t, "v2", testImage{layers: []testLayer{plainLayer(tarOf(t, entry{name: "v2"}))}})
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	data := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
	puller := func(identity string) *Puller {
		return newTestPuller(t, r, func(c *Config) {
			c.Policy = policyOf(t, fmt.Sprintf(`{"default":[{"type":"sigstoreSigned","keyData":%q,"signedIdentity":{"type":%q}}]}`, data, identity))
		})
	}
	p := puller("matchDigestOnly")
	mustFail(t, p, r.ref("v1"), trust.ErrDenied)

	const payloadType = "application/vnd.in-toto+json"
	statement := fmt.Sprintf(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":%q}}],"predicateType":"https://sigstore.dev/cosign/sign/v1","predicate":{}}`,
		hashOf(manifest).Hex)
	sum := sha256.Sum256(fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(statement), statement))
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	bundle := marshal(t, map[string]any{
		"mediaType":            typeSigstoreBundle,
		"verificationMaterial": map[string]any{"publicKey": map[string]any{"hint": "x"}},
		"dsseEnvelope":         map[string]any{"payload": []byte(statement), "payloadType": payloadType, "signatures": []any{map[string]any{"sig": sig}}},
	})
	_, found := r.referrer(typeSigstoreBundle, typeSigstoreBundle, bundle, 1)
	r.putManifest(indexOf(found), strings.Replace(digestOf(manifest), ":", "-", 1))
	mustPull(t, p, r.ref("v1"))
	mustFail(t, p, r.ref("v2"), trust.ErrDenied)
	mustFail(t, puller("matchRepository"), r.ref("v1"), trust.ErrDenied)
}
