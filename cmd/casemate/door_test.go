// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/policy"
)

// TestDoorFollowsInitData: the policy is the one of the initdata that the report carries, a policy that cannot be
// loaded parks the door, and only where there is none the built-in one applies.
func TestDoorFollowsInitData(t *testing.T) {
	exec := &kata.ExecProcessRequest{ContainerId: "c"}
	for _, tt := range []struct {
		name    string
		data    map[string]string
		wantErr string
		exec    string // code of the denial, "" when allowed
	}{
		{"tenant's policy", map[string]string{"policy.rego": "package agent_policy\nExecProcessRequest := true"}, "", ""},
		{"built-in policy", map[string]string{"casemate.toml": "workload = \"a\"\n"}, "", "policy-silent"},
		{"empty policy", map[string]string{"policy.rego": ""}, "policy.rego", ""},
		{"containers that nobody would start", map[string]string{"casemate.toml": "[[container]]\nname = 'a'\nimage = 'i'\n"}, "[[container]]", ""},
		{"policy that asks the network", map[string]string{"policy.rego": "package agent_policy\nA := http.send({})"}, "http.send", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			raw, err := initdata.Encode(evidence.SHA256, tt.data)
			if err != nil {
				t.Fatal(err)
			}
			d, err := initdata.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			m := &machine{attester: chip{hostData: d.Digest()}, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
			m.conf.InitData = filepath.Join(t.TempDir(), "initdata.toml")
			if err := os.WriteFile(m.conf.InitData, raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := m.bindInitData(t.Context()); err != nil {
				t.Fatal(err)
			}
			door := new(agent.Door)
			err = m.openDoor(door)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got %v, want %q in it", err, tt.wantErr)
				}
				other, err := policy.BuiltIn(false)
				if err != nil || door.Open(other) {
					t.Errorf("the door was not parked: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			p, err := m.agentPolicy()
			if err != nil {
				t.Fatal(err)
			}
			if door.Open(p) {
				t.Error("the door was not opened")
			}
			err = p.Allow(t.Context(), "ExecProcessRequest", exec)
			if (err == nil) != (tt.exec == "") || err != nil && !strings.Contains(err.Error(), tt.exec) {
				t.Errorf("exec: got %v, want %q", err, tt.exec)
			}
		})
	}
	door := new(agent.Door)
	if _, err := openDoor(t.Context(), options{config: "/nonexistent", quiet: true}.source(), door, &podParts{images: newPodImages(t.TempDir()), volumes: new(podVolumes)}); err == nil {
		t.Error("no configuration, and no error")
	}
	p, err := (&machine{steps: steps{w: io.Discard}}).agentPolicy()
	if err != nil || door.Open(p) {
		t.Errorf("the door was not parked: %v", err)
	}
}

// TestStrictDoor: measured configuration chooses the form of the built-in policy, and a tenant's policy ends it.
func TestStrictDoor(t *testing.T) {
	copied := &kata.CopyFileRequest{Path: "/run/kata-containers/shared/containers/" + strings.Repeat("a", 64) + "-0123456789abcdef-hosts", FileMode: 0o100644}
	for _, strict := range []bool{false, true} {
		m := &machine{steps: steps{w: io.Discard}}
		m.conf.Agent.Strict = strict
		p, err := m.agentPolicy()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Allow(t.Context(), "CopyFileRequest", copied); (err != nil) != strict {
			t.Errorf("strict %v: a copy: %v", strict, err)
		}
		images := newPodImages(t.TempDir())
		images.use(m)
		if got := images.noLogs(); got != strict {
			t.Errorf("strict %v: no logs: %v", strict, got)
		}
		text := "package agent_policy\nCopyFileRequest := true"
		m.rego = &text
		if images.noLogs() {
			t.Error("a tenant's policy says what is read")
		}
	}
}
