// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/casemate/casemate/imagepull/trust"
)

const (
	typeSimpleSigning   = "application/vnd.dev.cosign.simplesigning.v1+json"
	annotationSignature = "dev.cosignproject.cosign/signature"

	// maxSignatures caps the signatures of one digest, each of which costs a
	// request and a verification.
	maxSignatures = 256
	// maxPayload caps one signed payload; it names a digest and an identity.
	maxPayload = 64 << 10
)

// signatures finds cosign signatures in the image's own repository, under the
// tag that cosign derives from the signed digest, and OpenPGP ones in the store
// that is configured for the requested name.
type signatures struct {
	fetcher
	lookaside lookasideStore
}

var _ trust.SignatureSource = signatures{}

// Signatures returns what is attached to digest; nothing of it is verified but
// the digests of the payloads.
func (s signatures) Signatures(ctx context.Context, digest v1.Hash) ([]trust.Signature, error) {
	tag := digest.Algorithm + "-" + digest.Hex + ".sig"
	raw, err := s.src.tagged(ctx, tag)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetching signatures of %s: %w", digest, err)
	}
	payloads, err := parseSignatures(raw)
	if err != nil {
		return nil, fmt.Errorf("reading signatures of %s: %w", digest, err)
	}
	var found []trust.Signature
	for _, d := range payloads {
		payload, err := s.small(ctx, d, maxPayload)
		if err != nil {
			return nil, fmt.Errorf("fetching signature payload %s: %w", d.digest, err)
		}
		found = append(found, trust.Signature{Payload: payload, Base64Signature: d.annotations[annotationSignature]})
	}
	return found, nil
}

// Messages returns the OpenPGP messages of the image's lookaside store, unverified.
func (s signatures) Messages(ctx context.Context, digest v1.Hash) (list [][]byte, err error) {
	err = s.retrier.do(ctx, func() error {
		ctx, cancel := context.WithTimeoutCause(ctx, documentTimeout, ErrStalled)
		defer cancel()
		list, err = s.lookaside.messages(ctx, digest)
		return err
	})
	return list, err
}

// parseSignatures reads the manifest of a .sig tag. Layers that are no simple
// signing payload, or that carry no signature, are not for us.
func parseSignatures(raw []byte) ([]descriptor, error) {
	var w wireDocument
	if err := decode(raw, &w); err != nil {
		return nil, err
	}
	if w.SchemaVersion != 2 || w.Manifests != nil {
		return nil, fmt.Errorf("%w: not a schema 2 image manifest", ErrManifest)
	}
	if err := wantType(w.MediaType, typeOCIManifest, typeDockerManifest); err != nil {
		return nil, err
	}
	var payloads []descriptor
	for i := range w.Layers {
		d, err := w.Layers[i].check()
		if err != nil {
			return nil, fmt.Errorf("layer descriptor %d: %w", i, err)
		}
		if d.mediaType != typeSimpleSigning || d.annotations[annotationSignature] == "" {
			continue
		}
		if payloads = append(payloads, d); len(payloads) > maxSignatures {
			return nil, fmt.Errorf("%w: more than %d signatures", ErrTooLarge, maxSignatures)
		}
	}
	return payloads, nil
}
