// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

func TestHandshakesAreWrittenDown(t *testing.T) {
	broker := kbstest.Start()
	defer broker.Close()
	m := testMachine(config.Measured{KBS: config.KBS{URL: broker.URL, PlainHTTP: true}})
	m.attester = sampleTEE{}
	m.transcript = filepath.Join(t.TempDir(), "run", "attestation.json")
	explain := func() string {
		t.Helper()
		out := filepath.Join(t.TempDir(), "out")
		file, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		stdout := os.Stdout
		os.Stdout = file
		err = runExplain(t.Context(), []string{"attestation", "--transcript", m.transcript})
		os.Stdout = stdout
		if err = errors.Join(err, file.Close()); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	attest := func() {
		client, err := m.relyingParty()
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		_, _ = client.Token(t.Context()) // what came of it is written down
	}
	broker.Misbehave(kbstest.AttestDenied)
	attest()
	if got := explain(); !strings.Contains(got, "refused\n") || !strings.Contains(got, "RCAR handshake Attest failed") {
		t.Errorf("got %s", got)
	}
	broker.Misbehave("")
	attest()
	if got := explain(); !strings.Contains(got, "accepted\n") || strings.Contains(got, "refused") {
		t.Errorf("got %s", got)
	}
	if info, err := os.Stat(m.transcript); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if left, err := os.ReadDir(filepath.Dir(m.transcript)); err != nil || len(left) != 1 {
		t.Errorf("files left: %v, %v", left, err)
	}
	// A place that cannot be written costs the transcript, not the handshake.
	var logged strings.Builder
	m.log, m.transcript = slog.New(slog.NewTextHandler(&logged, nil)), "/proc/none/attestation.json"
	client, err := m.relyingParty()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := client.Token(t.Context()); err != nil || !strings.Contains(logged.String(), "not written down") {
		t.Errorf("%v: %s", err, logged.String())
	}
}

func TestExplainCommandLine(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "t.json")
	if err := os.WriteFile(broken, []byte(`{"kbs":"a","kbs":"b"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{"explain"}, exitUsage, "want one of attestation, policy, timeline"},
		{[]string{"explain", "pull"}, exitUsage, `got "pull"`},
		{[]string{"explain", "attestation", "more"}, exitUsage, "got 1 arguments"},
		{[]string{"explain", "attestation", "--transcript", "/nonexistent"}, exitFailed, "/nonexistent"},
		{[]string{"explain", "attestation", "--transcript", broken}, exitFailed, "reading a handshake's transcript"},
	} {
		var out strings.Builder
		if got := dispatch(t.Context(), tt.args, &out); got != tt.want || !strings.Contains(out.String(), tt.text) {
			t.Errorf("%q: got %d and %q, want %d and %q", tt.args, got, out.String(), tt.want, tt.text)
		}
	}
}

func TestDoctorCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
		text string
	}{
		{[]string{"doctor", "mainframe"}, exitUsage, "qemu-snp"},
		{[]string{"doctor", "azure", "gcp-snp"}, exitUsage, "got 2 arguments"},
	} {
		var out strings.Builder
		if got := dispatch(t.Context(), tt.args, &out); got != tt.want || !strings.Contains(out.String(), tt.text) {
			t.Errorf("%q: got %d and %q, want %d and %q", tt.args, got, out.String(), tt.want, tt.text)
		}
	}
	// A root without anything: every line is one to look at.
	m := examine(t.Context(), filepath.Join(t.TempDir(), "casemate.toml"), t.TempDir())
	if m.Healthy() || len(m.Findings) < 6 {
		t.Errorf("got %+v", m)
	}
}
