// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

func TestThousandParallelAuths(t *testing.T) {
	b := newBroker(t)
	body := evidence.Request{TEE: evidence.SNP, Hashes: evidence.SupportedHashes()}.Encode()
	const n = 1000
	nonces := make([]string, n)
	parallel(n, func(i int) {
		r := httptest.NewRequest("POST", "/kbs/v0/auth", strings.NewReader(string(body)))
		w := httptest.NewRecorder()
		b.server.Handler().ServeHTTP(w, r)
		if c, err := evidence.ParseChallenge(w.Body.Bytes()); err == nil {
			nonces[i] = c.Nonce
		}
	})
	seen := map[string]bool{}
	for _, nonce := range nonces {
		if nonce == "" || seen[nonce] {
			t.Fatalf("nonce %q is missing or there twice", nonce)
		}
		seen[nonce] = true
	}
}

func TestParallelHandshakes(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	guests := make([]*guest, 24)
	for i := range guests {
		guests[i] = b.guest(doc)
		guests[i].auth()
	}
	parallel(len(guests), func(i int) {
		g := guests[i]
		if a := g.attest(); a.status != http.StatusOK {
			t.Errorf("guest %d: %d %s", i, a.status, a.body)
			return
		}
		if got, err := g.open(g.get("app/key/1")); err != nil || got != "v" {
			t.Errorf("guest %d: %q, %v", i, got, err)
		}
	})
}

func TestRateLimit(t *testing.T) {
	l := newLimiter(2) // and 8 at once
	now := time.Now()
	from := func(addr string) *http.Request { return &http.Request{RemoteAddr: addr} }
	take := func(addr string, at time.Time) (n int) {
		for l.allow(from(addr), at) {
			n++
		}
		return n
	}
	if n := take("192.0.2.1:1", now); n != 8 {
		t.Errorf("%d requests at once, want 8", n)
	}
	if n := take("192.0.2.1:2", now); n != 0 {
		t.Errorf("%d more from another port", n)
	}
	if n := take("192.0.2.2:1", now); n != 8 {
		t.Errorf("%d from another address, want 8", n)
	}
	if n := take("[2001:db8::1]:1", now) + take("[2001:db8::2]:1", now); n != 8 {
		t.Errorf("%d from one IPv6 network, want 8", n)
	}
	if n := take("192.0.2.1:1", now.Add(time.Second)); n != 2 {
		t.Errorf("%d after a second, want 2", n)
	}
	if n := l.sweep(now.Add(time.Hour)); n != 6 || len(l.byAddr) != 0 {
		t.Errorf("swept: %d refused, %d addresses left", n, len(l.byAddr))
	}
	// More addresses than the table holds share one allowance.
	for i := range maxAddresses + 100 {
		l.allow(from(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255)), now)
	}
	if len(l.byAddr) > maxAddresses {
		t.Errorf("%d addresses in the table", len(l.byAddr))
	}
}

func TestOverload(t *testing.T) {
	b := newBroker(t)
	b.server.limiter = newLimiter(1)
	var last answer
	for range 10 {
		last = b.guest(nil).auth()
	}
	wantRefused(t, last, 429, "TooManyRequests")
	// What is refused is not written line by line, but once.
	before := len(b.records())
	b.guest(nil).auth()
	if after := len(b.records()); after != before {
		t.Errorf("%d records for a request over its rate", after-before)
	}
	b.server.sweep()
	list := b.records()
	if r := list[len(list)-1]; r.Event != audit.Overload || r.Allowed || !strings.Contains(r.Note, "requests over the rate") {
		t.Errorf("record %+v", r)
	}
	// Guessing tokens and sessions is bounded by the same rate.
	wantRefused(t, b.getBearer("a/b/c", "x"), 429, "TooManyRequests")
	wantRefused(t, (&guest{b: b}).post(nil), 429, "TooManyRequests")
	if a := b.do(t.Context(), "GET", "/owner/v1/workloads", nil, nil); a.status != 429 {
		t.Errorf("owner guess: %d", a.status)
	}
}

// However many bodies come at once, as many are taken apart as there are cores.
func TestBodiesWaitForTheirTurn(t *testing.T) {
	b := newBroker(t)
	for range cap(b.server.reading) {
		b.server.reading <- struct{}{}
	}
	g := b.guest(nil)
	g.auth()
	answered := make(chan answer, 1)
	go func() { answered <- g.post([]byte("{}")) }()
	select {
	case a := <-answered:
		t.Errorf("judged out of turn: %d %s", a.status, a.body)
	case <-time.After(100 * time.Millisecond):
		<-b.server.reading
		wantRefused(t, <-answered, 401, "AttestationError")
	}
}

// What costs its sender no session is bounded by the same rate: replays of a spent
// session and releases that are denied.
func TestDenialsAreRateLimited(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	denied := map[string]func() answer{
		"replay":  func() answer { return g.post(nil) },
		"release": func() answer { return g.get("app/key/none") },
	}
	for name, request := range denied {
		t.Run(name, func(t *testing.T) {
			b.server.limiter = newLimiter(1e-3) // and one at once
			before := len(b.records())
			if a := request(); a.status == http.StatusOK || a.status == http.StatusTooManyRequests {
				t.Fatalf("first: %d %s", a.status, a.body)
			}
			for range 3 {
				wantRefused(t, request(), 429, "TooManyRequests")
			}
			if n := len(b.records()) - before; n != 1 {
				t.Errorf("%d records, want 1", n)
			}
		})
	}
	t.Run("a release that the workload's owner took back", func(t *testing.T) {
		must(t, b.owner.Unregister(t.Context(), "web"))
		b.server.limiter = newLimiter(1e-3)
		wantRefused(t, g.get("app/key/1"), 403, "PolicyDeny")
		wantRefused(t, g.get("app/key/1"), 429, "TooManyRequests")
	})
}

// startServing runs Serve as the program does and returns its address.
func startServing(t *testing.T, b *broker) (addr string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.server.Serve(ctx, l, nil) }()
	return l.Addr().String(), func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
}

func healthy(t *testing.T, addr string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/healthz", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	if resp.StatusCode != 200 || string(body) != "ok\n" {
		t.Errorf("healthz: %d %q", resp.StatusCode, body)
	}
}

func TestServeEndsAndLeavesNothing(t *testing.T) {
	b := newBroker(t)
	before := goleak.IgnoreCurrent()
	addr, stop := startServing(t, b)
	healthy(t, addr)
	http.DefaultClient.CloseIdleConnections()
	stop()
	goleak.VerifyNone(t, before)
}

// A peer that sends its header a byte at a time is cut off, and others are served
// meanwhile.
func TestSlowHeader(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a time-out of 5 s")
	}
	b := newBroker(t)
	addr, stop := startServing(t, b)
	defer stop()
	c, err := net.Dial("tcp", addr)
	must(t, err)
	defer c.Close()
	_, err = io.WriteString(c, "POST /kbs/v0/auth HTTP/1.1\r\nHost: x\r\n")
	must(t, err)
	healthy(t, addr)
	must(t, c.SetReadDeadline(time.Now().Add(2*headerTimeout)))
	if _, err := bufio.NewReader(c).ReadByte(); err == nil {
		return // an answer such as 408 is as good
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Fatal("the connection is still open")
	}
}

func TestEveryWaitIsBounded(t *testing.T) {
	srv := newBroker(t).server.httpServer()
	for name, d := range map[string]time.Duration{
		"header": srv.ReadHeaderTimeout, "read": srv.ReadTimeout, "write": srv.WriteTimeout, "idle": srv.IdleTimeout,
	} {
		if d <= 0 || d > time.Minute {
			t.Errorf("%s time-out is %v", name, d)
		}
	}
	if srv.IdleTimeout > 5*time.Second {
		t.Errorf("a connection that asks nothing is kept for %v", srv.IdleTimeout)
	}
	if srv.Protocols.HTTP2() || srv.Protocols.UnencryptedHTTP2() {
		t.Error("HTTP/2 is on")
	}
}

func TestHugeHeader(t *testing.T) {
	b := newBroker(t)
	addr, stop := startServing(t, b)
	defer stop()
	req, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+addr+"/healthz", nil)
	must(t, err)
	req.Header.Set("Authorization", "Bearer "+strings.Repeat("a", 2*maxHeader))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return // closed while sending
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("answer %d", resp.StatusCode)
	}
}

func TestPanicIsOneAnswer(t *testing.T) {
	b := newBroker(t)
	h := b.server.guard(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("boom") }))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/x", nil))
	if w.Code != 500 || strings.Contains(w.Body.String(), "boom") {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
	if !strings.Contains(b.output.String(), "boom") {
		t.Error("the log does not say what happened")
	}
}

// BenchmarkHandshake is auth, attest and one resource over loopback HTTP, with the
// guest's half: key, report and decryption.
func BenchmarkHandshake(b *testing.B) {
	br := newBroker(b)
	doc := document(b, "web", "")
	br.register("web", doc, nil)
	br.put("web", "app/key/1", "v")
	g := br.guest(doc).handshake()
	for b.Loop() {
		g.newKey()
		g.auth()
		if a := g.attest(); a.status != http.StatusOK {
			b.Fatal(a)
		}
		g.wantSecret(g.get("app/key/1"), "v")
	}
}

// BenchmarkRelease is one resource for a session that is attested.
func BenchmarkRelease(b *testing.B) {
	br := newBroker(b)
	doc := document(b, "web", "")
	br.register("web", doc, nil)
	br.put("web", "app/key/1", "v")
	g := br.guest(doc).handshake()
	for b.Loop() {
		if a := g.get("app/key/1"); a.status != http.StatusOK {
			b.Fatal(a)
		}
	}
}
