// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxIndexDepth is how many indexes may stand above a manifest.
	maxIndexDepth = 2
	// maxIndexFetches bounds the documents opened in search of a platform.
	maxIndexFetches = 16
)

// fetcher gets verified documents and unverified blobs from one source.
type fetcher struct {
	src     source
	retrier retrier
	stall   time.Duration
}

// blob reads d's bytes, checking their number alone.
func (f fetcher) blob(ctx context.Context, d descriptor) *blobReader {
	return &blobReader{ctx: ctx, src: f.src, digest: d.digest, size: d.size, retrier: f.retrier, stall: f.stall}
}

// small returns the verified bytes of a blob of at most limit bytes.
func (f fetcher) small(ctx context.Context, d descriptor, limit int64) ([]byte, error) {
	if d.size > limit {
		return nil, fmt.Errorf("%w: blob %s of %d bytes, want at most %d", ErrTooLarge, d.digest, d.size, limit)
	}
	b := f.blob(ctx, d)
	defer b.Close()
	raw, err := io.ReadAll(b)
	if err != nil {
		return nil, err
	}
	return raw, verifyBytes(raw, d.digest)
}

// resolved is a reference followed to one platform's manifest.
type resolved struct {
	top      v1.Hash // digest of what the reference names: an index or the manifest
	manifest *document
}

// digests are those that a signature may be about.
func (r *resolved) digests() []v1.Hash {
	if r.top == r.manifest.digest {
		return []v1.Hash{r.top}
	}
	return []v1.Hash{r.top, r.manifest.digest}
}

func (f fetcher) resolve(ctx context.Context, want ocispec.Platform) (*resolved, error) {
	raw, digest, err := f.src.root(ctx)
	if err != nil {
		return nil, err
	}
	if digest == nil { // a tag: whatever it points to is what was asked for
		sum := sha256.Sum256(raw)
		digest = &v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum[:])}
	} else if err := verifyBytes(raw, *digest); err != nil {
		return nil, fmt.Errorf("checking manifest %s: %w", *digest, err)
	}
	doc, err := parseDocument(raw, *digest)
	if err != nil {
		return nil, fmt.Errorf("reading manifest %s: %w", *digest, err)
	}
	budget := maxIndexFetches
	manifest, err := f.descend(ctx, doc, want, 1, &budget)
	if err != nil {
		return nil, err
	}
	return &resolved{top: *digest, manifest: manifest}, nil
}

// descend follows an index to the manifest for want.
func (f fetcher) descend(ctx context.Context, doc *document, want ocispec.Platform, depth int, budget *int) (*document, error) {
	if doc.index == nil {
		return doc, nil
	}
	if depth > maxIndexDepth {
		return nil, fmt.Errorf("%w: index %s: more than %d indexes above a manifest", ErrTooLarge, doc.digest, maxIndexDepth)
	}
	candidates, err := choose(doc.index, want)
	if err != nil {
		return nil, fmt.Errorf("choosing from index %s: %w", doc.digest, err)
	}
	for _, d := range candidates {
		if *budget--; *budget < 0 {
			return nil, fmt.Errorf("%w: more than %d documents below one index", ErrTooLarge, maxIndexFetches)
		}
		below, err := f.entry(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("reading entry %s of index %s: %w", d.digest, doc.digest, err)
		}
		var manifest *document
		if manifest, err = f.descend(ctx, below, want, depth+1, budget); !errors.Is(err, ErrPlatform) {
			return manifest, err
		}
	}
	return nil, fmt.Errorf("choosing below index %s: %w: want %s", doc.digest, ErrPlatform, platformString(want))
}

// entry fetches what one entry of an index names and checks all that the entry
// says about it.
func (f fetcher) entry(ctx context.Context, d descriptor) (*document, error) {
	if d.size > maxDocument {
		return nil, fmt.Errorf("%w: got %d bytes, want at most %d", ErrTooLarge, d.size, maxDocument)
	}
	raw, err := f.src.document(ctx, d.digest)
	if err != nil {
		return nil, err
	}
	switch got := int64(len(raw)); {
	case got < d.size:
		return nil, fmt.Errorf("%w: got %d bytes, want %d", ErrShortBlob, got, d.size)
	case got > d.size:
		return nil, fmt.Errorf("%w: got %d bytes, want %d", ErrLongBlob, got, d.size)
	}
	if err := verifyBytes(raw, d.digest); err != nil {
		return nil, err
	}
	doc, err := parseDocument(raw, d.digest)
	if err != nil {
		return nil, err
	}
	isIndex := d.mediaType == typeOCIIndex || d.mediaType == typeDockerList
	if isIndex != (doc.index != nil) {
		return nil, fmt.Errorf("%w: it is not what its descriptor says, a %.100q", ErrManifest, d.mediaType)
	}
	return doc, nil
}

// config fetches and checks the manifest's config.
func (f fetcher) config(ctx context.Context, m *document, want ocispec.Platform) (*imageConfig, error) {
	raw, err := f.small(ctx, m.config, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("fetching image config %s: %w", m.config.digest, err)
	}
	c, err := parseConfig(raw, len(m.layers))
	if err != nil {
		return nil, err
	}
	if suits(c.platform, want) < 0 {
		return nil, fmt.Errorf("checking image config %s: %w: got %s, want %s", m.config.digest, ErrPlatform, platformString(c.platform), platformString(want))
	}
	return c, nil
}
