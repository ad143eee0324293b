// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	aa "github.com/casemate/casemate/agent/api/attestation"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/keyprovider"
)

// crowd counts who is inside at a time.
type crowd struct{ now, most, all atomic.Int64 }

func (c *crowd) enter() {
	c.all.Add(1)
	n := c.now.Add(1)
	for most := c.most.Load(); n > most && !c.most.CompareAndSwap(most, n); most = c.most.Load() {
	}
}

// busyTEE is as slow as a TPM, and so is its register.
type busyTEE struct{ crowd }

func (*busyTEE) TEE() evidence.TEE { return evidence.Sample }

func (b *busyTEE) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	b.work()
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

func (b *busyTEE) MeasureFor(string, string, string) (bool, error) {
	b.work()
	return true, nil
}

func (b *busyTEE) work() {
	b.enter()
	time.Sleep(2 * time.Millisecond)
	b.now.Add(-1)
}

// Workloads ask for evidence and record events as fast as they can. Whoever waits for the TEE or for the event log's
// lock holds a thread of the process, and the guest's own handshake stands in the same queue behind them.
func TestWorkloadsDoNotCrowdTheTEE(t *testing.T) {
	tee := new(busyTEE)
	log := slog.New(slog.DiscardHandler)
	agent := &Agent{Evidence: tee, Events: tee, Log: log}
	rest := &REST{Agent: agent, Log: log}
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			r := httptest.NewRequest("GET", "/aa/evidence?runtime_data=x", nil)
			if i%2 == 0 {
				r = httptest.NewRequest("POST", "/aa/aael", strings.NewReader(`{"domain":"d","operation":"o","content":"c"}`))
			}
			r.RemoteAddr = "127.0.0.1:5"
			w := httptest.NewRecorder()
			if rest.ServeHTTP(w, r); w.Code != http.StatusOK {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
	// A caller of the socket has one of them at the TEE and one in the queue before him at most.
	for tee.all.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	before := tee.all.Load()
	if _, err := agent.GetEvidence(t.Context(), &aa.GetEvidenceRequest{RuntimeData: []byte("y")}); err != nil {
		t.Error(err)
	}
	if n := tee.all.Load() - before; n > 5 {
		t.Errorf("a caller of the socket waited for %d of REST", n)
	}
	wg.Wait()
	if n := tee.most.Load(); n != 1 {
		t.Errorf("%d callers at the TEE at a time, want 1", n)
	}
}

func TestWhoWaitsForTheTEELeavesInTime(t *testing.T) {
	tee := slowTEE{make(chan struct{})}
	agent := &Agent{Evidence: tee, Log: slog.New(slog.DiscardHandler)}
	inside := make(chan error, 1)
	go func() {
		_, err := agent.GetEvidence(t.Context(), &aa.GetEvidenceRequest{RuntimeData: []byte("x")})
		inside <- err
	}()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := agent.GetEvidence(ctx, &aa.GetEvidenceRequest{RuntimeData: []byte("x")}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		cancel()
	}
	close(tee.release)
	if err := <-inside; err != nil {
		t.Error(err)
	}
	if _, err := agent.GetEvidence(t.Context(), &aa.GetEvidenceRequest{RuntimeData: []byte("x")}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// heldKeys keeps its callers waiting.
type heldKeys struct {
	crowd
	release chan struct{}
}

func (h *heldKeys) Key(context.Context, string) ([]byte, error) {
	h.enter()
	<-h.release
	h.now.Add(-1)
	return []byte(canary), nil
}

// A workload opens as many connections as it can: the guest's one process keeps descriptors and memory for itself,
// and who came late is served later.
func TestWorkloadsDoNotTakeEveryDescriptor(t *testing.T) {
	l, err := keyprovider.ListenLoopback(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	keys := &heldKeys{release: make(chan struct{})}
	rest := &REST{Resources: keys, Paths: []string{"kbs:///a/b/c"}, Log: slog.New(slog.DiscardHandler)}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- rest.Serve(ctx, l) }()
	const many = 3 * maxRESTConnections
	var conns []net.Conn
	for range many {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET /cdh/resource/a/b/c HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	for end := time.Now().Add(5 * time.Second); keys.now.Load() < maxRESTConnections && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	time.Sleep(100 * time.Millisecond) // for those beyond it, if nothing stops them
	close(keys.release)
	for _, c := range conns {
		if text, err := io.ReadAll(c); err != nil || !strings.HasSuffix(string(text), canary) {
			t.Errorf("%.40q, %v", text, err)
		}
	}
	if n := keys.most.Load(); n > maxRESTConnections {
		t.Errorf("%d connections served at a time, want at most %d", n, maxRESTConnections)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}
