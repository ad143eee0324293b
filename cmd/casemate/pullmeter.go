// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"io"
	"sync"

	"github.com/casemate/casemate/imagepull"
)

const pullStage = "pull, verify and open the image"

// pullMeter keeps how far each pull came last. It is safe for concurrent use.
type pullMeter struct {
	mu   sync.Mutex // guards last
	last map[string]imagepull.Progress
}

// watch also tells next, which may be nil.
func (p *pullMeter) watch(next func(imagepull.Progress)) func(imagepull.Progress) {
	return func(now imagepull.Progress) {
		p.mu.Lock()
		if p.last == nil {
			p.last = map[string]imagepull.Progress{}
		}
		p.last[now.Reference] = now
		p.mu.Unlock()
		if next != nil {
			next(now)
		}
	}
}

// take returns and forgets how far a pull came, zeros when it came to no layer.
func (p *pullMeter) take(reference string) imagepull.Progress {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.last[reference]
	delete(p.last, reference)
	return now
}

// count moves to a stage how far a pull came.
func (p *pullMeter) count(took *stage, reference string) {
	came := p.take(reference)
	took.Bytes, took.Retries = came.Fetched, came.Retries
}

// pullImage pulls, and writes down what it took; s tells it besides.
func (m *machine) pullImage(ctx context.Context, s steps, puller *imagepull.Puller, reference string) (img *imagepull.Image, err error) {
	err = s.measure(pullStage, func(took *stage) error {
		img, err = puller.Pull(ctx, reference)
		m.pulls.count(took, reference)
		return err
	})
	return img, err
}

// quietly are steps that are written down and told nobody.
func (s steps) quietly() steps { return steps{io.Discard, s.line} }
