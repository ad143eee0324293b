// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/trust"
)

// pull is one pull from its first request to its verdict. The order is fixed:
// the policy speaks before the config is fetched, every key is unwrapped and the
// space is checked before the first byte of a layer.
func (p *Puller) pull(ctx context.Context, reference string, ref reference, policy *trust.Policy) (*Image, error) {
	began := time.Now()
	img, err := p.steps(ctx, reference, ref, policy)
	if err != nil {
		return nil, fmt.Errorf("pulling %s: %w", reference, err)
	}
	p.log.Info("image pulled", "reference", reference, "digest", img.Digest.String(),
		"manifest", img.Manifest.String(), "layers", len(img.Layers), "seconds", time.Since(began).Seconds())
	return img, nil
}

func (p *Puller) steps(ctx context.Context, reference string, ref reference, policy *trust.Policy) (_ *Image, err error) {
	defer caught(&err)
	src, closeSource, err := p.source(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer closeSource()
	retries := new(atomic.Int64)
	f := p.fetcher(src)
	f.retrier.retries = retries
	found, config, err := p.admit(ctx, f, ref, policy)
	if err != nil {
		return nil, err
	}
	plans, err := p.plan(ctx, found.manifest, config)
	defer clearKeys(plans)
	if err != nil {
		return nil, err
	}
	_, size := p.missing(plans)
	if err := preflight(p.store.dir, size); err != nil {
		return nil, err
	}
	done := p.follow(reference, plans, retries)
	stop := done.watch(p.cfg.Progress, p.log)
	layers, err := p.fetchLayers(ctx, f, plans, done)
	stop()
	if err != nil {
		return nil, err
	}
	p.keep(found.manifest.digest, layers, policy.Hash())
	img := &Image{
		Reference: reference, Digest: found.top, Manifest: found.manifest.digest,
		Platform: config.platform, Config: config.config, layers: stack(layers),
		Admitted: policy.Requires(ref.name),
	}
	for _, plan := range plans {
		if plan.encrypted {
			img.Encrypted++
		}
	}
	for _, l := range img.layers {
		img.Layers = append(img.Layers, l.dir)
	}
	if img.lower = img.Layers; len(img.lower) == 0 {
		img.lower = []string{p.store.path("empty")}
	}
	return img, nil
}

func (p *Puller) fetcher(src source) fetcher {
	return fetcher{src: src, retrier: p.retrier, stall: p.cfg.StallTimeout}
}

// admit follows the reference to its platform's manifest, asks the policy about it and then fetches its config.
func (p *Puller) admit(ctx context.Context, f fetcher, ref reference, policy *trust.Policy) (*resolved, *imageConfig, error) {
	found, err := f.resolve(ctx, p.cfg.Platform)
	if err != nil {
		return nil, nil, err
	}
	subject := trust.Subject{Reference: ref.name, Digests: found.digests()}
	if err := policy.Check(ctx, subject, signatures{f, p.lookaside(ref.name)}); err != nil {
		return nil, nil, fmt.Errorf("asking the image policy: %w", err)
	}
	config, err := f.config(ctx, found.manifest, p.cfg.Platform)
	return found, config, err
}

// layerPlan is one layer of a manifest with all that it takes to open it.
type layerPlan struct {
	layerDescriptor
	id  layerID
	key *layerKey // nil when the layer is not encrypted
}

// plan unwraps the keys of this manifest's encrypted layers, also of those that
// are in the store: that somebody could open a layer once proves nothing about
// whoever asks now.
func (p *Puller) plan(ctx context.Context, m *document, c *imageConfig) ([]layerPlan, error) {
	plans := make([]layerPlan, 0, len(m.layers))
	for i, d := range m.layers {
		plan := layerPlan{layerDescriptor: d, id: layerID{diffID: c.diffIDs[i]}}
		if d.encrypted {
			key, err := unwrapLayerKey(ctx, p.cfg.Unwrapper, d.annotations)
			if err != nil {
				return plans, fmt.Errorf("opening the key of layer %s: %w", d.digest, err)
			}
			plan.key, plan.id.mark = key, p.store.mark(key)
		}
		plans = append(plans, plan)
	}
	return plans, nil
}

func clearKeys(plans []layerPlan) {
	for _, plan := range plans {
		if plan.key != nil {
			plan.key.clear()
		}
	}
}

// missing counts the layers that are not in the store and their size as
// transferred. Of several blobs for one layer the largest counts: fetchLayers
// takes it.
func (p *Puller) missing(plans []layerPlan) (layers int, size int64) {
	counted := map[layerID]int64{}
	for _, plan := range plans {
		if more := plan.size - counted[plan.id]; more > 0 && !p.store.has(plan.id) {
			counted[plan.id] = plan.size
			size += more // at most maxLayers times maxBlob
		}
	}
	return len(counted), size
}

func (p *Puller) follow(reference string, plans []layerPlan, retries *atomic.Int64) *progress {
	layers, size := p.missing(plans)
	return &progress{reference: reference, layers: layers, bytes: size, began: time.Now(), retries: retries}
}

// fetchLayers returns the manifest's layers, bottom first, each held once for
// every place where it occurs.
func (p *Puller) fetchLayers(ctx context.Context, f fetcher, plans []layerPlan, done *progress) ([]*layer, error) {
	layers := make([]*layer, len(plans))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(p.cfg.Parallel)
	for _, i := range bySize(plans) {
		g.Go(func() error {
			l, err := p.store.acquire(gctx, plans[i].id, func(dir string, l *layer) error {
				return p.build(gctx, f, plans[i], done, dir, l)
			})
			layers[i] = l
			return err
		})
	}
	if err := g.Wait(); err != nil {
		held := slices.DeleteFunc(layers, func(l *layer) bool { return l == nil })
		return nil, errors.Join(err, p.store.release(held, !transient(err)))
	}
	return layers, nil
}

// bySize orders layers so that the largest, which the pull will wait for, starts
// first.
func bySize(plans []layerPlan) []int {
	order := make([]int, len(plans))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(plans[b].size, plans[a].size) })
	return order
}

// build unpacks one layer into dir.
func (p *Puller) build(ctx context.Context, f fetcher, plan layerPlan, done *progress, dir string, l *layer) error {
	began := time.Now()
	v := verifiedLayer{
		layerDescriptor: plan.layerDescriptor, id: plan.id, keeper: p.store.keeper, key: plan.key,
		limit: p.cfg.MaxLayerBytes, over: ErrExpansion, chunks: p.chunks, codecs: p.codecs,
	}
	free, err := available(dir)
	if err != nil {
		return err
	}
	if free < v.limit {
		v.limit, v.over = free, ErrNoSpace
	}
	stats, err := v.unpack(ctx, func(ctx context.Context) io.ReadCloser { return done.count(f.blob(ctx, plan.descriptor)) }, dir)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", plan.digest, err)
	}
	done.unpacked.Add(1)
	l.implied, l.opaque = stats.ImpliedDirs, stats.RootOpaque
	p.log.Debug("layer unpacked", "digest", plan.digest.String(), "bytes", plan.size,
		"unpacked", stats.StreamBytes, "entries", stats.Entries, "seconds", time.Since(began).Seconds())
	return nil
}

// keep makes the image's layers stay until Remove.
func (p *Puller) keep(manifest v1.Hash, layers []*layer, policy [32]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if cached := p.images[manifest]; cached != nil {
		if cached.policy != policy {
			p.log.Info("cached image admitted by another policy", "manifest", manifest.String())
		}
		cached.policy = policy
		_ = p.store.release(layers, false) // already held; nothing is removed, so nothing can fail
		return
	}
	p.images[manifest] = &cachedImage{layers: layers, policy: policy}
}
