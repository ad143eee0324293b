// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// cutting serves a blob in pieces: each response ends, in the middle of its
// announced length, after a random number of bytes.
func cutting(blob []byte, ranges bool, rng *rand.Rand, sent *int) func(http.ResponseWriter, *http.Request) bool {
	return func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, digestOf(blob)) {
			return false
		}
		start := 0
		if r, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes="); ok && ranges {
			start, _ = strconv.Atoi(strings.TrimSuffix(r, "-"))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(blob)-1, len(blob)))
		}
		rest := blob[start:]
		w.Header().Set("Content-Length", strconv.Itoa(len(rest)))
		if start > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		n := min(len(rest), 20<<10+rng.IntN(100<<10))
		*sent += n
		w.Write(rest[:n])
		if n < len(rest) {
			panic(http.ErrAbortHandler)
		}
		return true
	}
}

// A pull goes on where the connection was cut; no byte comes more than twice.
func TestBlobCut(t *testing.T) {
	body := make([]byte, 1<<20)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	for i := range 20 {
		r := newRegistryFake(t)
		l := plainLayer(tarOf(t, entry{name: "f", body: string(body[i:])}))
		r.put(t, "v1", testImage{layers: []testLayer{l}})
		sent := 0
		r.handle = cutting(l.blob, true, rng, &sent)
		p := newTestPuller(t, r)
		img := mustPull(t, p, r.ref("v1"))
		wantFile(t, filepath.Join(img.Layers[0], "f"), string(body[i:]))
		if sent != len(l.blob) {
			t.Errorf("the registry sent %d bytes of a blob of %d", sent, len(l.blob))
		}
	}
}

// Whoever waits learns how often a connection was begun again, and pulls that were not cut
// count none.
func TestRetriesAreCounted(t *testing.T) {
	for name, cut := range map[string]bool{"cut": true, "whole": false} {
		r := newRegistryFake(t)
		rng := rand.New(rand.NewPCG(1, 2))
		body := make([]byte, 1<<20)
		for i := range body {
			body[i] = byte(rng.Uint32())
		}
		l := plainLayer(tarOf(t, entry{name: "f", body: string(body)}))
		r.put(t, "v1", testImage{layers: []testLayer{l}})
		sent, requests := 0, 0
		if cut {
			handle := cutting(l.blob, true, rng, &sent)
			r.handle = func(w http.ResponseWriter, req *http.Request) bool {
				if strings.HasSuffix(req.URL.Path, digestOf(l.blob)) {
					requests++
				}
				return handle(w, req)
			}
		}
		var last Progress
		p := newTestPuller(t, r, func(c *Config) { c.Progress = func(p Progress) { last = p } })
		mustPull(t, p, r.ref("v1"))
		if want := max(requests-1, 0); last.Retries != want || cut != (want > 1) || last.Fetched != int64(len(l.blob)) {
			t.Errorf("%s: %d retries and %d bytes, want %d and %d", name, last.Retries, last.Fetched, want, len(l.blob))
		}
	}
}

// A server that ignores ranges starts over: the bytes it repeats are skipped,
// but only as long as none is paid for three times.
func TestBlobWithoutRanges(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	for _, tt := range []struct {
		cuts int
		want error
	}{{0, nil}, {1, nil}, {10, ErrTransport}} {
		r := newRegistryFake(t)
		r.putBlob(blob)
		requests, sent := 0, 0
		r.handle = func(w http.ResponseWriter, _ *http.Request) bool {
			requests++
			w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
			if requests > tt.cuts {
				sent += len(blob)
				w.Write(blob)
				return true
			}
			sent += len(blob) * 3 / 4
			w.Write(blob[:len(blob)*3/4])
			panic(http.ErrAbortHandler)
		}
		got, err := readBlob(t, r, blob, time.Minute)
		if !errors.Is(err, tt.want) || err == nil && !bytes.Equal(got, blob) {
			t.Errorf("%d cuts: got %d bytes, error %v, want error %v", tt.cuts, len(got), err, tt.want)
		}
		if sent > 5*len(blob)/2 {
			t.Errorf("%d cuts: %d bytes were sent of a blob of %d", tt.cuts, sent, len(blob))
		}
	}
}

func readBlob(t *testing.T, r *registryFake, blob []byte, stall time.Duration) ([]byte, error) {
	t.Helper()
	f := fetcher{src: testSource(t, r, "x"), stall: stall, retrier: retrier{attempts: 3, first: time.Millisecond, longest: time.Second}}
	b := f.blob(t.Context(), descriptor{digest: hashOf(blob), size: int64(len(blob))})
	defer b.Close()
	return io.ReadAll(b)
}

func TestBlobServers(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 8<<10)
	half := len(blob) / 2
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	wait := func(req *http.Request) {
		select {
		case <-hang:
		case <-req.Context().Done():
		}
	}
	contentRange := func(w http.ResponseWriter, value string) {
		w.Header().Set("Content-Range", value)
		w.WriteHeader(http.StatusPartialContent)
	}
	for _, tt := range []struct {
		name   string
		handle func(w http.ResponseWriter, req *http.Request, n int)
		want   error
	}{
		{"ends early without a length", func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Write(blob[:half])
			w.(http.Flusher).Flush()
		}, ErrShortBlob},
		{"announces too little", func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Header().Set("Content-Length", strconv.Itoa(half))
			w.Write(blob[:half])
		}, ErrShortBlob},
		{"announces too much", func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.Write(append(bytes.Clone(blob), 'x'))
		}, ErrLongBlob},
		{"goes on without a length", func(w http.ResponseWriter, _ *http.Request, _ int) {
			w.(http.Flusher).Flush()
			w.Write(append(bytes.Clone(blob), 'x'))
		}, ErrLongBlob},
		{"never ends", func(w http.ResponseWriter, req *http.Request, _ int) {
			for req.Context().Err() == nil {
				w.Write(blob)
			}
		}, ErrLongBlob},
		{"never answers", func(_ http.ResponseWriter, req *http.Request, _ int) { wait(req) }, ErrStalled},
		{"stops in the middle", func(w http.ResponseWriter, req *http.Request, _ int) {
			w.Write(blob[:half])
			w.(http.Flusher).Flush()
			wait(req)
		}, ErrStalled},
		{"drips", func(w http.ResponseWriter, req *http.Request, _ int) {
			for i := 0; i < len(blob) && req.Context().Err() == nil; i++ {
				w.Write(blob[i : i+1])
				w.(http.Flusher).Flush()
				time.Sleep(10 * time.Millisecond)
			}
		}, ErrStalled},
		{"sends all and holds the connection", func(w http.ResponseWriter, req *http.Request, _ int) {
			w.Write(blob)
			w.(http.Flusher).Flush()
			wait(req)
		}, nil},
		{"cuts at once, always", func(http.ResponseWriter, *http.Request, int) { panic(http.ErrAbortHandler) }, ErrTransport},
		{"answers another range", func(w http.ResponseWriter, req *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
				w.Write(blob[:half])
				panic(http.ErrAbortHandler)
			}
			contentRange(w, fmt.Sprintf("bytes %d-%d/%d", half-1, len(blob)-1, len(blob)))
			w.Write(blob[half-1:])
		}, ErrRegistry},
		{"answers no range", func(w http.ResponseWriter, req *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
				w.Write(blob[:half])
				panic(http.ErrAbortHandler)
			}
			contentRange(w, "nonsense")
		}, ErrRegistry},
		{"has become shorter", func(w http.ResponseWriter, req *http.Request, n int) {
			if n == 1 {
				w.Header().Set("Content-Length", strconv.Itoa(len(blob)))
				w.Write(blob[:half])
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}, ErrShortBlob},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRegistryFake(t)
			n := 0
			r.handle = func(w http.ResponseWriter, req *http.Request) bool {
				n++
				tt.handle(w, req, n)
				return true
			}
			got, err := readBlob(t, r, blob, 100*time.Millisecond)
			if !errors.Is(err, tt.want) || err == nil && !bytes.Equal(got, blob) {
				t.Errorf("got %d bytes, error %v, want error %v", len(got), err, tt.want)
			}
		})
	}
}

// The time that the consumer takes is not the connection's.
func TestBlobSlowConsumer(t *testing.T) {
	blob := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	r := newRegistryFake(t)
	r.putBlob(blob)
	f := fetcher{src: testSource(t, r, "x"), stall: 50 * time.Millisecond, retrier: retrier{attempts: 1}}
	b := f.blob(t.Context(), descriptor{digest: hashOf(blob), size: int64(len(blob))})
	defer b.Close()
	var got []byte
	for buf := make([]byte, 4<<10); ; time.Sleep(30 * time.Millisecond) {
		n, err := b.Read(buf)
		got = append(got, buf[:n]...)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(got, blob) {
		t.Errorf("got %d bytes, want %d", len(got), len(blob))
	}
}

func TestRetryWait(t *testing.T) {
	r := retrier{attempts: 3, first: time.Millisecond, longest: time.Second}
	again := &retryable{error: ErrTransport}
	if err := r.wait(t.Context(), 1, again); err != nil {
		t.Errorf("first failure: %v", err)
	}
	if err := r.wait(t.Context(), 3, again); !errors.Is(err, ErrTransport) || !strings.Contains(err.Error(), "3 times") {
		t.Errorf("last failure: %v", err)
	}
	if err := r.wait(t.Context(), 1, ErrDigest); err != ErrDigest {
		t.Errorf("final failure: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrClosed)
	if err := r.wait(ctx, 1, again); err == nil {
		t.Error("no error after the context ended")
	}
	if err := r.wait(t.Context(), 1, &retryable{error: ErrRegistry, after: time.Hour}); !errors.Is(err, ErrRegistry) {
		t.Errorf("a long Retry-After: %v", err)
	}
}

// endless is a source that announces no length or whatever a test says.
type endless struct {
	source
	body   string
	length int64
}

func (e endless) blob(_ context.Context, _ v1.Hash, offset int64) (io.ReadCloser, int64, int64, error) {
	return io.NopCloser(strings.NewReader(e.body[offset:])), offset, e.length, nil
}

// Sizes at the end of int64 wrap around nowhere.
func TestBlobSizeArithmetic(t *testing.T) {
	for _, tt := range []struct {
		size, length int64
		want         error
	}{
		{math.MaxInt64, -1, ErrShortBlob},
		{math.MaxInt64, 3, ErrShortBlob},
		{3, math.MaxInt64, ErrLongBlob},
		{2, -1, ErrLongBlob},
		{0, -1, ErrLongBlob},
		{3, 3, nil},
	} {
		b := fetcher{src: endless{body: "abc", length: tt.length}, stall: time.Second}.blob(t.Context(), descriptor{size: tt.size})
		_, err := io.ReadAll(b)
		b.Close()
		if !errors.Is(err, tt.want) {
			t.Errorf("size %d, length %d: got error %v, want %v", tt.size, tt.length, err, tt.want)
		}
	}
	// The rest of a blob that was cut once, announced as all there can be.
	b := fetcher{src: endless{body: "abc", length: math.MaxInt64}, stall: time.Second}.blob(t.Context(), descriptor{size: 3})
	b.offset = 2
	if _, err := io.ReadAll(b); !errors.Is(err, ErrLongBlob) {
		t.Errorf("got error %v, want %v", err, ErrLongBlob)
	}
	b.Close()
}

// Of two blobs for one layer, the one that will be fetched counts.
func TestMissingCountsLargest(t *testing.T) {
	plan := func(id string, size int64) layerPlan {
		return layerPlan{layerDescriptor: layerDescriptor{descriptor: descriptor{size: size}}, id: layerID{diffID: hashOf([]byte(id))}}
	}
	held := plan("held", 1000)
	p := &Puller{store: &store{layers: map[layerID]*layer{held.id: {}}}}
	if layers, got := p.missing([]layerPlan{plan("a", 1), held, plan("a", 100), plan("b", 7), plan("a", 50), plan("b", 7)}); layers != 2 || got != 107 {
		t.Errorf("got %d bytes, want 107", got)
	}
	many := make([]layerPlan, maxLayers)
	for i := range many {
		many[i] = plan(strconv.Itoa(i), maxBlob)
	}
	if _, got := p.missing(many); got != maxLayers*maxBlob {
		t.Errorf("got %d bytes, want %d", got, int64(maxLayers*maxBlob))
	}
}
