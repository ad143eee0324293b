// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"io"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	watchInterval = 200 * time.Millisecond
	logInterval   = 10 * time.Second
)

// Progress is how far the layers of one pull have come. Layers that were in the
// store already count in neither figure.
type Progress struct {
	Reference string        // as requested
	Layers    int           // to be fetched
	Unpacked  int           // of them, verified and in the store
	Bytes     int64         // to be fetched, as transferred
	Fetched   int64         // of them; a byte that had to come twice counts once
	Elapsed   time.Duration // since the first layer was asked for
	Retries   int           // of config and layers: connections begun again
}

// progress counts for one pull; its stages add to it as they run.
type progress struct {
	reference string
	layers    int
	bytes     int64
	began     time.Time
	unpacked  atomic.Int64
	fetched   atomic.Int64
	retries   *atomic.Int64
}

func (p *progress) now() Progress {
	return Progress{
		Reference: p.reference, Layers: p.layers, Unpacked: int(p.unpacked.Load()),
		Bytes: p.bytes, Fetched: p.fetched.Load(), Elapsed: time.Since(p.began), Retries: int(p.retries.Load()),
	}
}

// count adds what is read from r.
func (p *progress) count(r io.ReadCloser) io.ReadCloser { return &countedReader{r, p} }

type countedReader struct {
	io.ReadCloser
	progress *progress
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.progress.fetched.Add(int64(n))
	return n, err
}

// watch tells watcher, which may be nil, and the log how p comes on until stop is
// called; stop waits for the last word.
func (p *progress) watch(watcher func(Progress), log *slog.Logger) (stop func()) {
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(watchInterval)
		defer tick.Stop()
		logged := p.began
		for running := true; running; {
			select {
			case <-tick.C:
			case <-ended:
				running = false
			}
			now := p.now()
			if watcher != nil {
				watcher(now)
			}
			if running && time.Since(logged) >= logInterval {
				logged = time.Now()
				log.Info("image pull goes on", "reference", p.reference, "layers", now.Layers, "unpacked", now.Unpacked,
					"bytes", now.Bytes, "fetched", now.Fetched, "rate", int64(float64(now.Fetched)/now.Elapsed.Seconds()))
			}
		}
	}()
	return func() {
		close(ended)
		<-done
	}
}
