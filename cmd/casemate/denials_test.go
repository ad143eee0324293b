// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy"
)

// printed is what a verb writes to standard output.
func printed(t *testing.T, args ...string) (string, int) {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stdout := os.Stdout
	os.Stdout = file
	var errs strings.Builder
	code := dispatch(t.Context(), args, &errs)
	os.Stdout = stdout
	text, err := os.ReadFile(file.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(text) + errs.String(), code
}

// TestExplainPolicy: what the guest's own policy refused is explained from the file that the agent leaves, which is
// for root alone, and nothing of it is said on the way.
func TestExplainPolicy(t *testing.T) {
	const canary = "canary-91ab22"
	path := filepath.Join(t.TempDir(), "run", "denial.json")
	m := &machine{denials: denials{path: path}, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
	text := "package agent_policy\nimport rego.v1\ndefault CopyFileRequest := false\n" +
		"CopyFileRequest if {\n\tprint(\"path is\", input.path)\n\tinput.path == \"" + canary + "\"\n}\n"
	m.rego = &text
	door := new(agent.Door)
	if err := m.openDoor(door); err != nil {
		t.Fatal(err)
	}
	p, err := m.agentPolicy()
	if err != nil {
		t.Fatal(err)
	}
	p.Watch(func(d policy.Denial) { m.denials.keep(m.log, d) })
	denied := p.Allow(t.Context(), "CopyFileRequest", &kata.CopyFileRequest{Path: "/etc/shadow"})
	if denied == nil || strings.Contains(denied.Error(), canary) {
		t.Fatalf("got %v", denied)
	}
	written(t, path)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v", info.Mode(), err)
	}
	got, code := printed(t, "explain", "policy", "--denial", path)
	for _, want := range []string{
		"CopyFileRequest: denied by policy: policy-denied", `line 6: input.path == "` + canary, "field           path\n", `given           "/etc/shadow"`,
		`wanted          "` + canary, "path is /etc/shadow",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%d: no %q in\n%s", code, want, got)
		}
	}
	if got, code = printed(t, "explain", "policy", "--denial", path, "--json"); code != 0 || !strings.Contains(got, `"field": "path"`) {
		t.Errorf("%d: got %s", code, got)
	}
	// What would another policy say?
	other := filepath.Join(t.TempDir(), "policy.rego")
	write(t, other, "package agent_policy\ndefault CopyFileRequest = true\n")
	if got, code = printed(t, "explain", "policy", "--denial", path, "--policy", other); code != 0 || got != "CopyFileRequest: allowed\n" {
		t.Errorf("%d: got %s", code, got)
	}
	input := filepath.Join(t.TempDir(), "input.json")
	write(t, input, `{"container_id":"x"}`)
	got, _ = printed(t, "explain", "policy", "--request", "ExecProcessRequest", "--input", input)
	if !strings.Contains(got, "policy-silent") || !strings.Contains(got, "has none for this request") {
		t.Errorf("got %s", got)
	}
}

// TestExplainImage: the comparison with an image is code behind the policy, and keeps both values.
func TestExplainImage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "denial.json")
	images := newPodImages(t.TempDir())
	images.use(&machine{denials: denials{path: path}, log: slog.New(slog.DiscardHandler)})
	err := images.admit(&specs.Process{Args: []string{"/app"}, Cwd: "/"}, &specs.Process{Args: []string{"sh", "-c", "x"}, Cwd: "/"})
	if err == nil || strings.Contains(err.Error(), "/app") {
		t.Fatalf("got %v", err)
	}
	written(t, path)
	got, code := printed(t, "explain", "policy", "--denial", path)
	for _, want := range []string{"CreateContainerRequest", "field           OCI.Process.Args\n", `given           ["sh" "-c" "x"]`, `wanted          ["/app"]`} {
		if !strings.Contains(got, want) {
			t.Errorf("%d: no %q in\n%s", code, want, got)
		}
	}
}

// TestDenialsKeepUp: a host that is denied all the time has the last one kept.
func TestDenialsKeepUp(t *testing.T) {
	d := &denials{path: filepath.Join(t.TempDir(), "denial.json")}
	log := slog.New(slog.DiscardHandler)
	for range 1000 {
		d.keep(log, policy.Denial{Request: "early", Causes: []policy.Cause{{Line: 1}}})
	}
	d.keep(log, policy.Denial{Request: "last", Causes: []policy.Cause{{Line: 1}}})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if raw, err := os.ReadFile(d.path); err == nil && strings.Contains(string(raw), `"last"`) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the last denial was not written")
		}
	}
}

func written(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no denial was written")
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
