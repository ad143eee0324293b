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
	typeSigstoreBundle  = "application/vnd.dev.sigstore.bundle.v0.3+json"
	typeEmpty           = "application/vnd.oci.empty.v1+json"
	annotationSignature = "dev.cosignproject.cosign/signature"
	annotationCert      = "dev.sigstore.cosign/certificate"
	annotationChain     = "dev.sigstore.cosign/chain"
	annotationRekor     = "dev.sigstore.cosign/bundle"

	// maxSignatures caps the signatures of one digest, each of which costs a
	// request and a verification.
	maxSignatures = 256
	// maxPayload caps one signed payload; it names a digest and an identity.
	maxPayload = 64 << 10
	// maxBundles caps the referrers of one digest that are opened in search of
	// sigstore bundles, two requests each.
	maxBundles = 64
	// maxSigstoreBundle caps one of them.
	maxSigstoreBundle = 512 << 10
)

// signatures finds cosign signatures in the image's own repository, under the
// tag that cosign 2 derives from the signed digest and among the referrers where
// cosign 3 attaches bundles, and OpenPGP ones in the store
// that is configured for the requested name.
type signatures struct {
	fetcher
	lookaside lookasideStore
}

var _ trust.SignatureSource = signatures{}

// Signatures returns what is attached to digest; nothing of it is verified but
// the digests of payloads and bundles. A fault of one way of attaching does not
// hide what the other has.
func (s signatures) Signatures(ctx context.Context, digest v1.Hash) ([]trust.Signature, error) {
	found, err := s.simple(ctx, digest)
	bundles, bundlesErr := s.bundles(ctx, digest)
	return append(found, bundles...), errors.Join(err, bundlesErr)
}

// simple returns the signatures under the .sig tag.
func (s signatures) simple(ctx context.Context, digest v1.Hash) ([]trust.Signature, error) {
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
		found = append(found, trust.Signature{
			Payload: payload, Base64Signature: d.annotations[annotationSignature],
			Certificate: d.annotations[annotationCert], Chain: d.annotations[annotationChain], RekorBundle: d.annotations[annotationRekor],
		})
	}
	return found, nil
}

// bundles returns the sigstore bundles that refer to digest (cosign's
// BUNDLE_SPEC): by the referrers API, and where the registry has none by the tag
// that stands in for it (OCI distribution-spec 1.1, "Referrers Tag Schema").
// One that cannot be had is told in the error, beside those that can.
func (s signatures) bundles(ctx context.Context, digest v1.Hash) (found []trust.Signature, err error) {
	raw, err := s.src.referrers(ctx, digest)
	if errors.Is(err, ErrNotFound) {
		raw, err = s.src.tagged(ctx, digest.Algorithm+"-"+digest.Hex)
	}
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetching referrers of %s: %w", digest, err)
	}
	candidates, err := parseReferrers(raw)
	if err != nil {
		return nil, fmt.Errorf("reading referrers of %s: %w", digest, err)
	}
	for _, d := range candidates {
		bundle, oneErr := s.bundle(ctx, d)
		if oneErr != nil {
			err = errors.Join(err, fmt.Errorf("fetching referrer %s: %w", d.digest, oneErr))
		} else if bundle != nil {
			found = append(found, trust.Signature{Bundle: bundle})
		}
		if ctx.Err() != nil {
			break
		}
	}
	return found, err
}

// bundle opens one referrer; nil without an error is one of another kind.
func (s signatures) bundle(ctx context.Context, d descriptor) ([]byte, error) {
	if d.size > maxPayload {
		return nil, fmt.Errorf("%w: got %d bytes, want at most %d", ErrTooLarge, d.size, maxPayload)
	}
	raw, err := s.src.document(ctx, d.digest)
	if err != nil {
		return nil, err
	}
	if err := verifyBytes(raw, d.digest); err != nil {
		return nil, err
	}
	layer, err := parseBundleManifest(raw)
	if layer == nil || err != nil {
		return nil, err
	}
	return s.small(ctx, *layer, maxSigstoreBundle)
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

// parseReferrers reads an index of referrers and returns those that may hold a
// bundle. Some registries put the config's type where the artifact's belongs.
func parseReferrers(raw []byte) ([]descriptor, error) {
	doc, err := parseDocument(raw, v1.Hash{})
	if err != nil {
		return nil, err
	}
	if doc.index == nil {
		return nil, fmt.Errorf("%w: not an index", ErrManifest)
	}
	var candidates []descriptor
	for _, d := range doc.index {
		if d.mediaType != typeOCIManifest || d.artifactType != typeSigstoreBundle && d.artifactType != typeEmpty && d.artifactType != "" {
			continue
		}
		if candidates = append(candidates, d); len(candidates) > maxBundles {
			return nil, fmt.Errorf("%w: more than %d bundles", ErrTooLarge, maxBundles)
		}
	}
	return candidates, nil
}

// parseBundleManifest reads the manifest around a bundle, which is its one
// layer; nil is a manifest of something else.
func parseBundleManifest(raw []byte) (*descriptor, error) {
	var w wireDocument
	if err := decode(raw, &w); err != nil {
		return nil, err
	}
	if w.SchemaVersion != 2 || w.Manifests != nil {
		return nil, fmt.Errorf("%w: not a schema 2 image manifest", ErrManifest)
	}
	if w.ArtifactType != typeSigstoreBundle {
		return nil, nil
	}
	if len(w.Layers) != 1 || w.Layers[0].MediaType != typeSigstoreBundle {
		return nil, fmt.Errorf("%w: want one layer, a sigstore bundle", ErrManifest)
	}
	d, err := w.Layers[0].check()
	if err != nil {
		return nil, err
	}
	return &d, nil
}
