// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// recorder stands between guest and keybroker and keeps the last attest request, as
// somebody who can read that connection would. It holds keybroker's own TLS key: the
// demo plays every role, and a host never has it.
type recorder struct {
	server *http.Server
	addr   string
	done   chan struct{}
	broker *fixture.Broker

	mu     sync.Mutex // guards what follows
	attest []byte
	cookie string
}

func startRecorder(broker *fixture.Broker) (*recorder, error) {
	target, err := url.Parse(broker.URL)
	if err != nil {
		return nil, err
	}
	key, err := tls.LoadX509KeyPair(broker.CertFile, broker.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("reading keybroker's key pair: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &recorder{addr: l.Addr().String(), done: make(chan struct{}), broker: broker}
	proxy := &httputil.ReverseProxy{
		Rewrite:   func(p *httputil.ProxyRequest) { p.SetURL(target) },
		Transport: broker.Client().Transport,
	}
	r.server = &http.Server{
		Handler:           r.record(proxy),
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{key}, MinVersion: tls.VersionTLS13},
		ReadHeaderTimeout: 10 * time.Second,
	}
	go func() {
		defer close(r.done)
		_ = r.server.ServeTLS(l, "", "")
	}()
	return r, nil
}

func (r *recorder) URL() string { return "https://" + r.addr }

func (r *recorder) Close() {
	_ = r.server.Close()
	<-r.done
}

func (r *recorder) record(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/kbs/v0/attest" {
			body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, 4<<20))
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			r.mu.Lock()
			r.attest, r.cookie = body, req.Header.Get("Cookie")
			r.mu.Unlock()
			req.Body = io.NopCloser(bytes.NewReader(body))
		}
		next.ServeHTTP(w, req)
	})
}

// postAgain sends the recorded attest request once more, with its cookie and then
// under a session of its own, and returns keybroker's answers.
func (r *recorder) postAgain(ctx context.Context) (string, error) {
	r.mu.Lock()
	body, cookie := r.attest, r.cookie
	r.mu.Unlock()
	if body == nil {
		return "", errors.New("no attest request has passed")
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.broker.URL+"/kbs/v0/attest", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Cookie", cookie)
	resp, err := r.broker.Client().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return "", err
	}
	if resp.StatusCode == http.StatusOK {
		return "", fmt.Errorf("keybroker took a recorded attest request: %s", resp.Status)
	}
	return fmt.Sprintf("%s: %s", resp.Status, bytes.TrimSpace(answer)), nil
}
