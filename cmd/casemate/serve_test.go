// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

func testMachine(c config.Measured) *machine {
	return &machine{conf: c, steps: steps{io.Discard}, log: slog.New(slog.DiscardHandler)}
}

func TestServePartsFollowConfiguration(t *testing.T) {
	for name, c := range map[string]struct {
		conf config.Measured
		want string
	}{
		"nothing":  {config.Measured{}, ""},
		"data hub": {config.Measured{Services: config.Services{DataHub: "unix:///run/a"}}, "data hub"},
		"all": {config.Measured{KeyProvider: config.KeyProvider{Listen: "unix:///run/k"}, Services: config.Services{
			AttestationAgent: "unix:///run/a", DataHub: "unix:///run/b", REST: "127.0.0.1:8006",
		}}, "key provider, attestation agent, data hub, REST"},
	} {
		var names []string
		for _, p := range testMachine(c.conf).parts(nil, nil, nil) {
			names = append(names, p.name)
		}
		if got := strings.Join(names, ", "); got != c.want {
			t.Errorf("%s: serves %q, want %q", name, got, c.want)
		}
	}
}

// A second server on the same sockets must say which are taken, serve nothing and
// leave the first one alone.
func TestServeOnSocketsThatAreTaken(t *testing.T) {
	dir := t.TempDir()
	address := func(name string) string { return "unix://" + filepath.Join(dir, "sub", name) }
	taken, err := listen(t.Context(), address("taken"))
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	serve := func(context.Context, net.Listener) error {
		t.Error("served although a socket was taken")
		return nil
	}
	err = testMachine(config.Measured{}).serveParts(t.Context(), []part{
		{"free one", address("free"), serve}, {"taken one", address("taken"), serve},
	})
	if err == nil || !strings.Contains(err.Error(), "taken one") || !strings.Contains(err.Error(), "another process listens") {
		t.Fatalf("got %v", err)
	}
	if l, err := net.Dial("unix", filepath.Join(dir, "sub", "free")); err == nil {
		_ = l.Close()
		t.Error("the free socket stayed open")
	}
	conn, err := net.Dial("unix", filepath.Join(dir, "sub", "taken"))
	if err != nil {
		t.Fatalf("the first server's socket is gone: %v", err)
	}
	_ = conn.Close()
}

// sampleTEE signs nothing; kbstest believes it.
type sampleTEE struct{}

func (sampleTEE) TEE() evidence.TEE { return evidence.Sample }

func (sampleTEE) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

// What lets a caller be this guest is off unless measured configuration asks for it.
func TestAgentFollowsItsSwitches(t *testing.T) {
	for name, c := range map[string]struct {
		conf       config.Measured
		token, raw bool
		wantErr    bool
	}{
		"nothing": {conf: config.Measured{KBS: config.KBS{URL: "http://kbs", PlainHTTP: true}}},
		"both": {
			conf:  config.Measured{KBS: config.KBS{URL: "http://kbs", PlainHTTP: true}, Services: config.Services{GetToken: true, RawEvidence: true}},
			token: true, raw: true,
		},
		"tokens without a KBS": {conf: config.Measured{Services: config.Services{GetToken: true}}, wantErr: true},
	} {
		m := testMachine(c.conf)
		m.attester = sampleTEE{}
		agent, stop, err := m.agent()
		if (err != nil) != c.wantErr {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		stop()
		if (agent.Tokens != nil) != c.token || agent.Raw != c.raw {
			t.Errorf("%s: tokens %v, raw %v", name, agent.Tokens != nil, agent.Raw)
		}
	}
}
