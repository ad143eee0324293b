// SPDX-License-Identifier: Apache-2.0

package standalone

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// served is a supervisor on a socket, and its client.
func served(t *testing.T, specs ...Spec) (*Client, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := New(specs, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	down := make(chan error, 2)
	go func() { s.Run(ctx); down <- nil }()
	go func() { down <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-down; err != nil {
				t.Error(err)
			}
		}
	})
	return NewClient(path), path
}

func TestClientAndServer(t *testing.T) {
	started := make(chan struct{})
	c, path := served(t, Spec{Name: "app", Image: "img", Restart: RestartAlways, Run: func(ctx context.Context, p *Process) (int, error) {
		_, _ = p.Output().Write(bytes.Repeat([]byte("."), RingSize+3))
		p.Started(9, "sha256:d")
		close(started)
		<-ctx.Done()
		_, _ = io.WriteString(p.Output(), "bye")
		return 0, nil
	}})
	<-started
	list, err := c.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "app" || list[0].State != Running || list[0].PID != 9 {
		t.Fatalf("got %+v, %v", list, err)
	}
	var lost int64
	var out bytes.Buffer
	if err := c.Log(t.Context(), "app", false, &out, func(n int64) { lost = n }); err != nil || lost != 3 || out.Len() != RingSize {
		t.Errorf("got %d bytes, %d lost, %v", out.Len(), lost, err)
	}
	// Who follows gets the last words, and then the end.
	followed := make(chan string)
	go func() {
		var out bytes.Buffer
		_ = c.Log(context.Background(), "app", true, &out, func(int64) {})
		followed <- out.String()
	}()
	if err := c.Stop(t.Context(), "app"); err != nil {
		t.Error(err)
	}
	if got := <-followed; !strings.HasSuffix(got, "..bye") {
		t.Errorf("followed to %q", got[max(0, len(got)-10):])
	}
	for _, name := range []string{"x", "app/../x", "", "app/stop"} {
		if err := c.Stop(t.Context(), name); err == nil {
			t.Errorf("stopped %q", name)
		}
	}
	// What is not in the protocol does nothing: no start, no way to name a file.
	raw := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	defer raw.CloseIdleConnections()
	for _, request := range []string{"POST /containers", "POST /containers/app/start", "GET /containers/app/stop", "GET /containers/app", "GET /", "GET /containersapp/log", "DELETE /containers/app/stop"} {
		method, target, _ := strings.Cut(request, " ")
		req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+target, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := raw.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", request, resp.Status)
		}
	}
}

func TestClientWithoutServer(t *testing.T) {
	if _, err := NewClient(filepath.Join(t.TempDir(), "s")).List(t.Context()); err == nil || !strings.Contains(err.Error(), "asking casemate serve") {
		t.Errorf("got %v", err)
	}
}
