// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

// tellPair is a client of a broker over TLS that answers to incidents with a status and a text.
func tellPair(t *testing.T, status int, answer string) (*kbstest.Server, *Client, *[]string) {
	t.Helper()
	server := kbstest.StartTLS()
	t.Cleanup(server.Close)
	server.Put("default/key/1", []byte(secret))
	told := new([]string)
	server.Incidents = func(authorization string, body []byte) (int, []byte) {
		*told = append(*told, authorization+" "+string(body))
		if strings.HasSuffix(authorization, "void") {
			return http.StatusUnauthorized, []byte("{}")
		}
		return status, []byte(answer)
	}
	client, err := New(Config{URL: server.URL, Roots: server.Roots, Attester: &sampleAttester{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return server, client, told
}

// Telling makes no handshake; it takes the session, and when that is over the ticket.
func TestTell(t *testing.T) {
	server, client, told := tellPair(t, http.StatusOK, `{"ticket":"incidents:x"}`)
	if err := client.Tell(t.Context(), []byte("1")); !errors.Is(err, ErrNoSession) {
		t.Errorf("without a session: %v", err)
	}
	if n := server.Count(""); n != 0 {
		t.Fatalf("%d requests without a session", n)
	}
	wantSecret(t, client)
	handshakes := server.Count("POST auth")
	for _, body := range []string{"2", "3"} {
		if err := client.Tell(t.Context(), []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	client.Close()
	server.Forget()
	if err := client.Tell(t.Context(), []byte("4")); err != nil {
		t.Fatal(err)
	}
	if got := *told; len(got) != 3 || !strings.HasPrefix(got[0], "Bearer ey") || got[1] != "Bearer incidents:x 3" || got[2] != "Bearer incidents:x 4" {
		t.Errorf("told %q", got)
	}
	client.ticket = "void"
	if err := client.Tell(t.Context(), []byte("5")); !errors.Is(err, ErrNoSession) {
		t.Errorf("with a ticket that is void: %v", err)
	}
	if client.ticket != "" {
		t.Error("a void ticket is kept")
	}
	if n := server.Count("POST auth"); n != handshakes {
		t.Errorf("%d handshakes, want %d", n, handshakes)
	}
}

// A broker that has no such path is known as one from its first answer; one that is busy or broken is not.
func TestTellRefused(t *testing.T) {
	for _, tt := range []struct {
		status int
		answer string
		want   error
	}{
		{http.StatusNotFound, "", ErrNotServed}, {http.StatusMethodNotAllowed, "", ErrNotServed}, {http.StatusOK, "ok", ErrNotServed},
		{http.StatusOK, `{"ticket":"a\r\nb"}`, ErrNotServed}, {http.StatusOK, `{"ticket":"` + strings.Repeat("x", 1<<20) + `"}`, ErrProtocol},
		{http.StatusUnauthorized, "", ErrNoSession}, {http.StatusForbidden, "", ErrNoSession},
		{http.StatusTooManyRequests, "", ErrUnavailable}, {http.StatusServiceUnavailable, "", ErrUnavailable}, {http.StatusInternalServerError, "", ErrProtocol},
	} {
		_, client, told := tellPair(t, tt.status, tt.answer)
		wantSecret(t, client)
		err := client.Tell(t.Context(), []byte("1"))
		if !errors.Is(err, tt.want) || errors.Is(err, ErrNotServed) != (tt.want == ErrNotServed) {
			t.Errorf("%d %.20q: %v", tt.status, tt.answer, err)
		}
		if len(*told) != 1 {
			t.Errorf("%d: %d requests", tt.status, len(*told))
		}
	}
	server, client, _ := tellPair(t, http.StatusOK, "")
	server.Incidents = nil // as Trustee
	wantSecret(t, client)
	if err := client.Tell(t.Context(), []byte("1")); !errors.Is(err, ErrNotServed) {
		t.Errorf("another broker: %v", err)
	}
}

// Over plain HTTP nothing is told: the host could read it.
func TestTellNothingInTheClear(t *testing.T) {
	server, client := newPair(t, nil)
	server.Incidents = func(string, []byte) (int, []byte) { return http.StatusOK, []byte(`{"ticket":"x"}`) }
	wantSecret(t, client)
	if err := client.Tell(t.Context(), []byte("1")); !errors.Is(err, ErrNotServed) {
		t.Error(err)
	}
	if n := server.Count("POST incidents"); n != 0 {
		t.Errorf("%d messages in the clear", n)
	}
}

// A session that is being earned is waited for, but not longer than the caller wants.
func TestTellWaitsForAHandshake(t *testing.T) {
	server, client, told := tellPair(t, http.StatusOK, `{"ticket":"x"}`)
	slow := &heldAttester{started: make(chan struct{}), release: make(chan struct{})}
	client.cfg.Attester = slow
	done := make(chan error, 1)
	go func() {
		_, err := client.Token(t.Context())
		done <- err
	}()
	<-slow.started
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := client.Tell(short, []byte("1")); !errors.Is(err, ErrNoSession) {
		t.Errorf("during the handshake: %v", err)
	}
	waiting := make(chan error, 1)
	go func() { waiting <- client.Tell(t.Context(), []byte("2")) }()
	close(slow.release)
	if err := <-waiting; err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if len(*told) != 1 || server.Count("POST auth") != 1 {
		t.Errorf("told %q", *told)
	}
}

// heldAttester answers when it is released.
type heldAttester struct {
	sampleAttester
	started, release chan struct{}
}

func (a *heldAttester) Evidence(ctx context.Context, r evidence.ReportData) (json.RawMessage, error) {
	close(a.started)
	<-a.release
	return a.sampleAttester.Evidence(ctx, r)
}
