// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"

	aa "github.com/casemate/casemate/agent/api/attestation"
	cdh "github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

func TestDaemonNames(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{"/usr/local/bin/attestation-agent", "-h"}, exitDone, "--attestation_sock"},
		{[]string{"attestation-agent", "--config", "x"}, exitUsage, "-config"},
		{[]string{"attestation-agent", "--attestation-sock", "unix:///x"}, exitUsage, "attestation-sock"},
		{[]string{"attestation-agent", "--attestation_sock", "127.0.0.1:50002"}, exitFailed, "want unix:///PATH"},
		{[]string{"attestation-agent", "-i", "not base64"}, exitFailed, "base64"},
		{[]string{"attestation-agent", "serve"}, exitUsage, "got 1 arguments"},
		{[]string{"confidential-data-hub", "--help"}, exitDone, "[-c FILE]"},
		{[]string{"confidential-data-hub", "--config", "x"}, exitUsage, "-config"},
		{[]string{"api-server-rest", "--help"}, exitDone, "--cdh_addr"},
		{[]string{"api-server-rest", "--verbose"}, exitUsage, "-verbose"},
		{[]string{"/usr/bin/casemate", "fly"}, exitUsage, `unknown verb "fly"`},
		{[]string{"attestation-agent-nv"}, exitUsage, "usage: casemate"},
		{nil, exitUsage, "usage: casemate"},
	} {
		var out strings.Builder
		if got := start(t.Context(), tt.args, &out); got != tt.want || !strings.Contains(out.String(), tt.text) {
			t.Errorf("%q: got %d and %q, want %d and %q", tt.args, got, out.String(), tt.want, tt.text)
		}
	}
}

// stockDir is a guest's files as kata-agent leaves them.
func stockDir(t *testing.T, kbsURL string) (s stock, document *initdata.InitData) {
	t.Helper()
	dir := t.TempDir()
	file := "[kbc]\nname = 'cc_kbc'\nurl = '" + kbsURL + "'\n"
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{"cdh.toml": file, "casemate.toml": "workload = 'a'\n[kbs]\nplain_http = true\n[services]\nrest_resources = ['kbs:///default/key/1']\n"})
	if err != nil {
		t.Fatal(err)
	}
	if document, err = initdata.Parse(raw); err != nil {
		t.Fatal(err)
	}
	s = stock{measured: filepath.Join(dir, "absent.toml"), key: "cdh.toml", file: filepath.Join(dir, "cdh.toml"), usual: filepath.Join(dir, "initdata.toml"), events: filepath.Join(dir, "events")}
	for path, text := range map[string][]byte{s.file: []byte(file), s.usual: raw} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s, document
}

func TestStockFilesAreBound(t *testing.T) {
	zeros := make([]byte, initdata.HostDataSize)
	for name, c := range map[string]struct {
		edit    func(*stock)
		bound   func(*initdata.InitData) []byte
		wantErr string
	}{
		"as kata-agent starts it":        {nil, (*initdata.InitData).Digest, ""},
		"initdata edited":                {func(s *stock) { appendTo(t, s.usual, "# looser\n") }, (*initdata.InitData).Digest, "this document is"},
		"initdata taken away":            {func(s *stock) { s.usual += "-not" }, (*initdata.InitData).Digest, "no file is configured and no disk has it"},
		"initdata that must be there":    {func(s *stock) { s.document = "/nonexistent" }, (*initdata.InitData).Digest, "/nonexistent"},
		"launch without initdata":        {nil, func(*initdata.InitData) []byte { return zeros }, "all zero"},
		"file beside initdata moves KBS": {func(s *stock) { replace(t, s.file, "http://", "http://evil.") }, (*initdata.InitData).Digest, "kbs.url is set twice"},
		"file that is missing":           {func(s *stock) { s.file += "-not" }, (*initdata.InitData).Digest, "reading cdh.toml"},
		"digest alone, right":            {func(s *stock) { s.digest, s.file = readDigest(t, s.usual), "" }, (*initdata.InitData).Digest, ""},
		"digest alone, wrong":            {func(s *stock) { s.digest, s.file = []byte("x"), "" }, (*initdata.InitData).Digest, "matching initdata"},
		"digest alone, none launched":    {func(s *stock) { s.digest, s.file = readDigest(t, s.usual), "" }, func(*initdata.InitData) []byte { return zeros }, "all zero"},
		"measured file that is broken": {func(s *stock) {
			s.measured = s.file // not casemate.toml's keys
		}, (*initdata.InitData).Digest, `unknown key "kbc`},
	} {
		s, d := stockDir(t, "http://kbs")
		if c.edit != nil {
			c.edit(&s)
		}
		m := testMachine(config.Measured{})
		m.attester = chip{hostData: c.bound(d)}
		err := m.openStock(t.Context(), s)
		if c.wantErr == "" && err != nil || c.wantErr != "" && (err == nil || !strings.Contains(err.Error(), c.wantErr)) {
			t.Errorf("%s: got %v, want %q", name, err, c.wantErr)
		}
	}
}

func readDigest(t *testing.T, path string) []byte {
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest()
}

func appendTo(t *testing.T, path, text string) {
	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, append(raw, text...), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func replace(t *testing.T, path, from, to string) {
	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(strings.ReplaceAll(string(raw), from, to)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// background serves until the test ends and waits for address to answer.
func background(t *testing.T, network, address string, serve func(context.Context) error) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for range 500 {
		if conn, err := net.Dial(network, address); err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nothing answers on %s", address)
}

// The three daemons, each alone on its socket, the REST server asking the others.
func TestDaemonsTogether(t *testing.T) {
	broker := kbstest.Start()
	defer broker.Close()
	broker.Put("default/key/1", []byte("a secret"))
	broker.Put("default/kek/1", []byte("a KEK"))
	s, _ := stockDir(t, broker.URL)
	open := func() *machine {
		m := testMachine(config.Measured{})
		m.attester = sampleTEE{}
		if err := m.openStock(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		return m
	}
	dir := t.TempDir()
	agent, hub := filepath.Join(dir, "aa", "aa.sock"), filepath.Join(dir, "cdh.sock")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	bind := l.Addr().String()
	_ = l.Close()
	rest := open()
	background(t, "tcp", bind, func(ctx context.Context) error {
		return rest.serveREST(ctx, bind, "all", "unix://"+hub, "unix://"+agent)
	})
	get := func(path string) string {
		response, err := http.Get("http://" + bind + path)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body)
	}
	if got := get("/cdh/resource/default/key/1"); got != "get resource failed" {
		t.Errorf("before the data hub is up: %q", got)
	}
	for range 2 { // the second time on a connection that the first daemon's end has closed
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 2)
		a, h := open(), open()
		go func() { done <- a.serveAgent(ctx, "unix://"+agent) }()
		go func() { done <- h.serveHub(ctx, "unix://"+hub) }()
		waitFor(t, agent)
		waitFor(t, hub)
		for path, want := range map[string]string{
			"/cdh/resource/default/key/1":            "a secret",
			"/cdh/resource/default/kek/1":            "get resource failed",
			"/aa/evidence?runtime_data=x":            evidenceOf(t, "x"),
			"/aa/additional-evidence?runtime_data=x": "",
			"/aa/token?token_type=kbs":               "get token failed: not enabled",
			"/info":                                  `{"version":"Guest Components Version: 0.1.0","tee":"sample","feature":"all"}`,
		} {
			if got := get(path); got != want {
				t.Errorf("%s: got %q, want %q", path, got, want)
			}
		}
		stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}

func waitFor(t *testing.T, path string) {
	t.Helper()
	for range 500 {
		if conn, err := net.Dial("unix", path); err == nil {
			_ = conn.Close()
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("nothing answers on %s", path)
}

func evidenceOf(t *testing.T, data string) string {
	out, err := sampleTEE{}.Evidence(t.Context(), evidence.WorkloadReportData([]byte(data)))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestDataHubWithoutKBS(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cdh.sock")
	m := testMachine(config.Measured{})
	m.attester = sampleTEE{}
	background(t, "unix", path, func(ctx context.Context) error { return m.serveHub(ctx, "unix://"+path) })
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	_, err = cdh.NewTTRPCGetResourceServiceClient(client).GetResource(t.Context(), &cdh.GetResourceRequest{ResourcePath: "kbs:///a/b/c"})
	if err == nil || !strings.Contains(err.Error(), "[CDH] [ERROR]: get resource failed") {
		t.Errorf("got %v", err)
	}
	_, err = aa.NewTTRPCAttestationAgentServiceClient(client).GetTeeType(t.Context(), &aa.GetTeeTypeRequest{})
	if err == nil {
		t.Error("the data hub's socket serves the attestation agent")
	}
}

func TestRESTFlagsThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct{ bind, features, hub, agent, want string }{
		"unknown feature":     {"127.0.0.1:0", "some", hubSocket, agentSocket, "want resource, attestation or all"},
		"open to the network": {"0.0.0.0:8006", "resource", hubSocket, agentSocket, "0.0.0.0"},
		"socket file":         {"unix:///run/x", "resource", hubSocket, agentSocket, "loopback"},
		"data hub over TCP":   {"127.0.0.1:0", "resource", "127.0.0.1:50000", agentSocket, "--cdh_addr"},
		"agent over TCP":      {"127.0.0.1:0", "attestation", hubSocket, "127.0.0.1:50002", "--aa_addr"},
	} {
		err := testMachine(config.Measured{}).serveREST(t.Context(), c.bind, c.features, c.hub, c.agent)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestDigestFlagIsStrictBase64(t *testing.T) {
	var out strings.Builder
	text := strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("12345678901234567890123456789012")), "=")
	if got := start(t.Context(), []string{"attestation-agent", "-i", text}, &out); got != exitFailed || !strings.Contains(out.String(), "base64") {
		t.Errorf("got %d, %q", got, out.String())
	}
}
