// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/casemate/casemate/imagepull/trust"
)

// Resolved is an image whose documents have been verified and which the policy has admitted, none of whose layers has
// been fetched: they may come from elsewhere. It is not changed after Resolve has returned it.
type Resolved struct {
	Reference string              // as requested
	Digest    v1.Hash             // as in Image
	Manifest  v1.Hash             // as in Image
	Platform  ocispec.Platform    // of the config
	Config    ocispec.ImageConfig // how the image wants to be run
	Admitted  string              // as in Image
	Layers    []ResolvedLayer     // the manifest's, bottom first; the same one may stand there twice
}

// ResolvedLayer is what the verified manifest and config say of one layer.
type ResolvedLayer struct {
	Digest, DiffID v1.Hash
	Encrypted      bool
	Annotations    map[string]string // of the manifest's descriptor; nil without
}

// Resolve finds what reference names and has the policy judge it, as Pull does, and stops there. Its errors are those
// of Pull.
func (p *Puller) Resolve(ctx context.Context, reference string) (*Resolved, error) {
	ref, err := parseReference(reference, p.cfg.Insecure)
	if err != nil {
		return nil, err
	}
	policy, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer p.wg.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(p.ctx, func() { cancel(ErrClosed) })()
	r, err := p.resolve(ctx, ref, policy)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", reference, err)
	}
	r.Reference = reference
	p.log.Info("image resolved", "reference", reference, "digest", r.Digest.String(), "manifest", r.Manifest.String(), "layers", len(r.Layers))
	return r, nil
}

// enter makes Close wait for the caller, who calls p.wg.Done, and returns the policy.
func (p *Puller) enter() (*trust.Policy, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if p.policy == nil {
		return nil, fmt.Errorf("%w: no image policy is configured", trust.ErrDenied)
	}
	p.wg.Add(1)
	return p.policy, nil
}

func (p *Puller) resolve(ctx context.Context, ref reference, policy *trust.Policy) (_ *Resolved, err error) {
	defer caught(&err)
	src, closeSource, err := p.source(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer closeSource()
	found, config, err := p.admit(ctx, p.fetcher(src), ref, policy)
	if err != nil {
		return nil, err
	}
	r := &Resolved{
		Digest: found.top, Manifest: found.manifest.digest, Platform: config.platform, Config: config.config, Admitted: policy.Requires(ref.name),
	}
	for i, l := range found.manifest.layers {
		r.Layers = append(r.Layers, ResolvedLayer{Digest: l.digest, DiffID: config.diffIDs[i], Encrypted: l.encrypted, Annotations: l.annotations})
	}
	return r, nil
}

// LayerTree is a layer's tree that the caller has mounted and answers for.
type LayerTree struct {
	Dir     string   // in overlayfs form
	Implied []string // directories of the layer that its archive did not describe, "." for the root
	Opaque  bool     // the layer hides all below it
}

// Image is the image over trees, one for each of Layers; equal layers have one Dir. The trees stay the caller's, who
// unmounts them behind the last mount of the image.
func (r *Resolved) Image(trees []LayerTree) (*Image, error) {
	if len(trees) != len(r.Layers) || len(trees) == 0 {
		return nil, fmt.Errorf("image %s: %d trees, want one for each of %d layers", r.Manifest, len(trees), len(r.Layers))
	}
	byDir := map[string]*layer{}
	var layers []*layer
	for _, t := range trees {
		if t.Dir == "" {
			return nil, errors.New("a layer's tree has no directory")
		}
		if byDir[t.Dir] == nil {
			byDir[t.Dir] = &layer{dir: t.Dir, implied: slices.Clone(t.Implied), opaque: t.Opaque}
		}
		layers = append(layers, byDir[t.Dir])
	}
	img := &Image{
		Reference: r.Reference, Digest: r.Digest, Manifest: r.Manifest, Platform: r.Platform, Config: r.Config, Admitted: r.Admitted,
		layers: stack(layers),
	}
	for _, l := range img.layers {
		img.Layers = append(img.Layers, l.dir)
	}
	img.lower = img.Layers
	return img, nil
}
