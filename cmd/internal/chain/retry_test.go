// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

// slowRegistry stands before a registry. Once it is told to, it counts requests for
// blobs and holds them.
type slowRegistry struct {
	registry http.Handler
	mu       sync.Mutex
	blobs    map[string]int // by path; nil: not yet
	hold     chan struct{}
	arrived  chan struct{}
}

func (s *slowRegistry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	counted := s.blobs != nil && r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/")
	if counted {
		s.blobs[r.URL.Path]++
	}
	s.mu.Unlock()
	if counted {
		select {
		case s.arrived <- struct{}{}:
		default:
		}
		select {
		case <-s.hold:
		case <-r.Context().Done():
			return
		}
	}
	s.registry.ServeHTTP(w, r)
}

// TestPodRetryJoinsThePull: kata's runtime gives up at its deadline and comes back with
// a new container id. The pull goes on in between, and nothing is fetched twice.
func TestPodRetryJoinsThePull(t *testing.T) {
	w := newWorld(t)
	slow := &slowRegistry{
		registry: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: w.registry.Addr}),
		hold:     make(chan struct{}), arrived: make(chan struct{}, 1),
	}
	server := httptest.NewServer(slow)
	t.Cleanup(server.Close)
	w.registry.Addr = server.Listener.Addr().String()
	var err error
	if w.policy, err = fixture.SignedBy(w.registry.Addr, w.path("owner.pub")); err != nil {
		t.Fatal(err)
	}
	d := w.initdata(t, "initdata-pod.toml", "pod", w.policy, podPolicy)
	w.register(t, "pod", d.Digest)
	image := w.image(t, "pod")
	slow.blobs = map[string]int{}
	g := w.agent(t, d)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	if _, err := g.CreateContainer(within(t), podContainer("sandbox0", "pause", "/pause")); err != nil {
		t.Fatal(err)
	}
	request := func(id string) *kata.CreateContainerRequest {
		return podContainer(id, image, "/bin/sh", "-c", "echo hello from the pod; read x")
	}
	// The deadline travels with the request, as with kata's runtime; it passes while layers are on their way.
	ctx, cancel := context.WithTimeout(within(t), 2*time.Second)
	defer cancel()
	if _, err := g.CreateContainer(ctx, request("first")); err == nil {
		t.Fatal("the first request ended within its deadline")
	}
	select {
	case <-slow.arrived:
	default:
		t.Fatal("the first request's deadline passed before it came to the layers")
	}
	retried := make(chan error, 1)
	go func() { retried <- second(g.CreateContainer(within(t), request("second"))) }()
	time.Sleep(300 * time.Millisecond)
	close(slow.hold)
	if err := <-retried; err != nil {
		t.Fatalf("the retry: %v", err)
	}
	slow.mu.Lock()
	defer slow.mu.Unlock()
	if len(slow.blobs) == 0 {
		t.Error("no blob was fetched")
	}
	for path, n := range slow.blobs {
		if n != 1 {
			t.Errorf("%s was fetched %d times", path, n)
		}
	}
	if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "second"}); err != nil {
		t.Error(err)
	}
}
