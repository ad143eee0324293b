// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/agent/policy/replay"
)

// TestRefusedProbeSaysWhatOpensIt takes the line that ends a refusal through a shell and the generator: what was
// refused is allowed then, in that container alone.
func TestRefusedProbeSaysWhatOpensIt(t *testing.T) {
	generated, err := Generate(t.Context(), []byte(replay.PodFile), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range replay.Stacks() {
		for name, p := range map[string]*policy.Policy{"built-in": builtIn(t), "generated": load(t, generated)} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				probe := otherProbe(t, s, "plain") // the one container that both let run
				live(t, p, s)
				denied := p.Allow(t.Context(), "ExecProcessRequest", probe)
				if denied == nil {
					t.Fatal("the probe was allowed before")
				}
				_, line, ok := strings.Cut(denied.Error(), "for a probe or hook: casemate-build agent-policy POD.yaml -o policy.rego --exec ")
				if !ok {
					t.Fatalf("got %v", denied)
				}
				word, err := exec.Command("sh", "-c", "printf %s "+line).Output()
				if err != nil {
					t.Fatal(err)
				}
				e, err := ParseExec(string(word))
				if err != nil || e.Container != "plain" || !slices.Equal(e.Argv, probe.Process.Args) {
					t.Fatalf("got %+v, %v of %s", e, err, line)
				}
				opened, err := Generate(t.Context(), []byte(replay.PodFile), corpus(), Options{Exec: []Exec{e, e}})
				if err != nil {
					t.Fatal(err)
				}
				q := load(t, opened)
				live(t, q, s)
				if err := q.Allow(t.Context(), "ExecProcessRequest", probe); err != nil {
					t.Errorf("refused even so: %v", err)
				}
				if err := q.Allow(t.Context(), "ExecProcessRequest", otherProbe(t, s, "app")); err == nil {
					t.Error("allowed in another container")
				}
			})
		}
	}
}

// TestRefusedExecOffersNothing where no policy of a pod file would allow it, or where the line is the host's to bend.
func TestRefusedExecOffersNothing(t *testing.T) {
	s := replay.Stacks()[0]
	for name, change := range map[string]func(*kata.ExecProcessRequest){
		"a terminal":             func(m *kata.ExecProcessRequest) { m.Process.Terminal = true },
		"no command line":        func(m *kata.ExecProcessRequest) { m.Process.Args = nil },
		"a very long one":        func(m *kata.ExecProcessRequest) { m.Process.Args = []string{strings.Repeat("x", 4000)} },
		"one that is not a text": func(m *kata.ExecProcessRequest) { m.Process.Args = []string{"\xff"} },
	} {
		p := builtIn(t)
		live(t, p, s)
		m := proto.Clone(otherProbe(t, s, "app")).(*kata.ExecProcessRequest)
		change(m)
		if err := p.Allow(t.Context(), "ExecProcessRequest", m); err == nil || strings.Contains(err.Error(), "casemate-build") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	// A name that Kubernetes would not have given is not repeated.
	p := builtIn(t)
	for _, step := range s.Life() {
		if m, ok := step.Msg.(*kata.CreateContainerRequest); ok {
			m = proto.Clone(m).(*kata.CreateContainerRequest)
			m.OCI.Annotations["io.kubernetes.cri.container-name"] = "app' -o /etc/x; reboot; '"
			step.Msg = m
		}
		_ = p.Allow(t.Context(), step.Request(), step.Msg)
	}
	if err := p.Allow(t.Context(), "ExecProcessRequest", otherProbe(t, s, "app")); err == nil || !strings.Contains(err.Error(), "--exec 'CONTAINER=") {
		t.Errorf("got %v", err)
	}
}

func TestParseExec(t *testing.T) {
	for _, text := range []string{"", "app", "=[\"x\"]", "app=", "app=[]", "app=null", "app=x", "app=[1]", "app=\"x\""} {
		if e, err := ParseExec(text); err == nil {
			t.Errorf("%q: got %+v", text, e)
		}
	}
	if _, err := Generate(t.Context(), []byte(podFile), images, Options{Exec: []Exec{{"nobody", []string{"x"}}}}); err == nil || !strings.Contains(err.Error(), "no container nobody") {
		t.Errorf("got %v", err)
	}
}

func builtIn(t *testing.T) *policy.Policy {
	t.Helper()
	p, err := policy.BuiltIn(false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// live creates the pod's containers.
func live(t *testing.T, p *policy.Policy, s replay.Stack) {
	t.Helper()
	for _, step := range s.Life() {
		switch step.Msg.(type) {
		case *kata.CreateSandboxRequest, *kata.CreateContainerRequest:
			if err := p.Allow(t.Context(), step.Request(), step.Msg); err != nil && step.BuiltIn && step.Tenant {
				t.Fatalf("%s: %v", step.Name, err)
			}
		}
	}
}

// otherProbe is a probe with a command line that is not the pod file's, as the container's own user.
func otherProbe(t *testing.T, s replay.Stack, container string) *kata.ExecProcessRequest {
	t.Helper()
	for _, step := range s.Life() {
		if m, ok := step.Msg.(*kata.CreateContainerRequest); ok && m.ContainerId == s.ID(container) {
			p := proto.Clone(m.OCI.Process).(*kata.Process)
			p.Args = []string{"sh", "-c", `cat "/tmp/it's $HOME"`}
			return &kata.ExecProcessRequest{ContainerId: m.ContainerId, ExecId: "probe", Process: p}
		}
	}
	t.Fatalf("the pod has no container %s", container)
	return nil
}
