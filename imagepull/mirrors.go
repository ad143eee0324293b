// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// answered is a source whose first answer is already here.
type answered struct {
	source
	raw  []byte
	want *v1.Hash
}

func (a answered) root(context.Context) ([]byte, *v1.Hash, error) { return a.raw, a.want, nil }

// firstPlace asks one place after the other for what ref names and returns the
// first that has it; the rest of the image comes from there. When none has it,
// the error tells of each place and the entry that led to it.
func (p *Puller) firstPlace(ctx context.Context, places []endpoint) (source, error) {
	var failed []error
	for _, e := range places {
		src, err := p.place(ctx, e)
		if err == nil && len(places) == 1 {
			return src, nil
		}
		if err == nil {
			a := answered{source: src}
			if a.raw, a.want, err = src.root(ctx); err == nil {
				return a, nil
			}
		}
		if e.matched != "" {
			err = fmt.Errorf("at %s, by prefix %q of registries.conf: %w", e.ref.Context(), e.matched, err)
		}
		failed = append(failed, err)
		if ctx.Err() != nil {
			break
		}
		if len(places) > 1 {
			p.log.Warn("place has no image", "place", e.ref.Context().Name(), "error", err)
		}
	}
	return nil, errors.Join(failed...)
}

// place logs in to one place.
func (p *Puller) place(ctx context.Context, e endpoint) (source, error) {
	client, err := p.client(ctx, e)
	if err != nil {
		return nil, err
	}
	return &registry{ref: e.ref, client: client, retrier: p.retrier}, nil
}
