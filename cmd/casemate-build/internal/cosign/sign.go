// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/casemate/casemate/cmd/casemate-build/internal/image"
)

const (
	payloadMediaType types.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	payloadType                      = "cosign container image signature"
	// signatureAnnotation holds the ASN.1 signature over the payload in
	// standard base64.
	signatureAnnotation = "dev.cosignproject.cosign/signature"

	// maxSignatures bounds what one image collects; its manifest would not fit
	// in a registry far beyond.
	maxSignatures = 1000
)

type payload struct {
	Critical critical `json:"critical"`
	// Optional is null, as cosign writes it without annotations.
	Optional *struct{} `json:"optional"`
}

type critical struct {
	Identity struct {
		DockerReference string `json:"docker-reference"`
	} `json:"identity"`
	Image struct {
		DockerManifestDigest string `json:"docker-manifest-digest"`
	} `json:"image"`
	Type string `json:"type"`
}

// Payload is what is signed: that reference names the manifest or index with
// this digest.
func Payload(reference string, digest v1.Hash) ([]byte, error) {
	p := payload{Critical: critical{Type: payloadType}}
	p.Critical.Identity.DockerReference = reference
	p.Critical.Image.DockerManifestDigest = digest.String()
	raw, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding signature payload: %w", err)
	}
	return raw, nil
}

// Tag is where the signatures of the image with this digest are.
func Tag(digest v1.Hash) string {
	return digest.Algorithm + "-" + digest.Hex + ".sig"
}

// Attached is the image that carries the signatures of another one.
type Attached struct {
	Image v1.Image
	// Count is how many signatures it carries.
	Count int
	// Added is false if there was one by the same key over the same payload
	// already; Image is then what was there.
	Added bool
}

// Attach signs payload and adds the signature to those of base, which is nil
// if there are none yet. The others are kept as they are.
func Attach(base *image.Content, payload []byte, key *ecdsa.PrivateKey) (Attached, error) {
	img := mutate.MediaType(mutate.ConfigMediaType(empty.Image, types.OCIConfigJSON), types.OCIManifestSchema1)
	count := 0
	if base != nil {
		if base.Image == nil {
			return Attached{}, fmt.Errorf("adding to the signatures in %s: it is an index, not an image", base.Descriptor.Digest)
		}
		m, err := image.ReadManifest(base.Image, base.Descriptor)
		if err != nil {
			return Attached{}, fmt.Errorf("adding to the signatures in %s: %w", base.Descriptor.Digest, err)
		}
		img, count = base.Image, len(m.Layers)
		if signedBy(m, payload, &key.PublicKey) {
			return Attached{Image: img, Count: count}, nil
		}
	}
	if count >= maxSignatures {
		return Attached{}, fmt.Errorf("adding a signature: there are %d already, want at most %d", count, maxSignatures)
	}
	hash := sha256.Sum256(payload)
	signature, err := ecdsa.SignASN1(rand.Reader, key, hash[:])
	if err != nil {
		return Attached{}, fmt.Errorf("signing: %w", err)
	}
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:       static.NewLayer(payload, payloadMediaType),
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(signature)},
	})
	if err != nil {
		return Attached{}, fmt.Errorf("adding a signature: %w", err)
	}
	return Attached{Image: img, Count: count + 1, Added: true}, nil
}

// signedBy reports whether one of the layers of m is a valid signature by key
// over exactly this payload.
func signedBy(m *v1.Manifest, payload []byte, key *ecdsa.PublicKey) bool {
	hash := sha256.Sum256(payload)
	for _, layer := range m.Layers {
		if layer.Digest.Hex != fmt.Sprintf("%x", hash) {
			continue
		}
		signature, err := base64.StdEncoding.DecodeString(layer.Annotations[signatureAnnotation])
		if err == nil && ecdsa.VerifyASN1(key, hash[:], signature) {
			return true
		}
	}
	return false
}
