// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy/replay"
)

// otherPod stands beside the corpus' pod in one file and has containers of the same names.
const otherPod = `
---
kind: Pod
metadata: {name: backup}
spec:
  enableServiceLinks: false
  containers:
  - name: plain
    image: registry.example/plain:1
    command: [/dump]
    securityContext: {runAsUser: 0}
    livenessProbe: {exec: {command: [/plain, --dump-all]}}
  - name: sweeper
    image: registry.example/plain:1
`

// TestPodsOfOneFile attacks a policy for several pods: a guest is one of them, and what one pod may is not the other's.
func TestPodsOfOneFile(t *testing.T) {
	generated, err := Generate(t.Context(), []byte(replay.PodFile+otherPod), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := replay.Stacks()[0]
	p := load(t, generated)
	live(t, p, s)
	var plain *kata.CreateContainerRequest
	for _, step := range s.Life() {
		if m, ok := step.Msg.(*kata.CreateContainerRequest); ok && m.ContainerId == s.ID("plain") {
			plain = m
		}
	}
	probe := &kata.ExecProcessRequest{ContainerId: plain.ContainerId, ExecId: "probe", Process: proto.Clone(plain.OCI.Process).(*kata.Process)}
	probe.Process.Args = []string{"/plain", "--dump-all"}
	probe.Process.User.UID = 0
	if err := p.Allow(t.Context(), "ExecProcessRequest", probe); err == nil {
		t.Error("a probe of the other pod's container, as that container's user")
	}
	for name, change := range map[string]func(*kata.CreateContainerRequest){
		"of the same name": func(m *kata.CreateContainerRequest) {
			m.OCI.Process.Args = []string{"/dump"}
			m.OCI.Process.User.UID = 0
		},
		"of another name": func(*kata.CreateContainerRequest) {},
	} {
		m := proto.Clone(plain).(*kata.CreateContainerRequest)
		m.ContainerId = strings.Repeat("0", 63) + "1"
		m.ExecId = m.ContainerId
		change(m)
		if err := p.Allow(t.Context(), "CreateContainerRequest", m); err == nil {
			t.Errorf("a container of the other pod, %s", name)
		}
	}
	// The other pod, in a guest of its own.
	p = load(t, generated)
	for _, step := range s.Life() {
		switch m := step.Msg.(type) {
		case *kata.CreateSandboxRequest:
			err = p.Allow(t.Context(), step.Request(), m)
		case *kata.CreateContainerRequest:
			if m.ContainerId == s.ID("plain") {
				m = proto.Clone(m).(*kata.CreateContainerRequest)
				m.OCI.Process.Args, m.OCI.Process.User.UID = []string{"/dump"}, 0
			} else if m.ContainerId != s.SandboxID() {
				continue
			}
			err = p.Allow(t.Context(), step.Request(), m)
		default:
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", step.Name, err)
		}
	}
}
