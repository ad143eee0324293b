// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

// printingPolicy is podPolicy with values and prints that are the tenant's alone.
const printingPolicy = `
ExecProcessRequest if {
	print("canary-print asked for", input.process.Args)
	input.process.Args == ["/bin/busybox", "canary-wanted"]
}
`

// toldOf waits until the owner reads all of wants in what the last guest of w told, and returns it.
func (w *world) toldOf(t *testing.T, wants ...string) string {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		text := ""
		if ids := regexp.MustCompile(` incident workload=pod .*id=([0-9a-f]{16}) `).FindAllStringSubmatch(string(w.must(t, "keybroker", "log", "--state", w.broker.State)), -1); len(ids) > 0 {
			text = string(w.must(t, "keybroker", "log", "--state", w.broker.State, "--guest", ids[len(ids)-1][1]))
		}
		missing := ""
		for _, want := range wants {
			if !strings.Contains(text, want) {
				missing = want
			}
		}
		if missing == "" {
			return text
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %q in what the owner reads:\n%s\n%s", missing, text, w.must(t, "keybroker", "log", "--state", w.broker.State))
		}
	}
}

// TestOwnerReadsIncidents: why an exec was denied and a pull failed is for the owner to read at keybroker; the host
// reads what it always did.
func TestOwnerReadsIncidents(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-pod.toml", "pod", w.policy, podPolicy+printingPolicy)
	w.register(t, "pod", d.Digest)
	image := w.image(t, "pod")
	w.secret(t, "pod", "image/canary/x", "canary-secret")
	g := w.agent(t, d)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	var host strings.Builder
	refused := func(what string, err error, text string) {
		t.Helper()
		wantRefused(t, what, err, text)
		host.WriteString(err.Error() + "\n")
	}
	exec := func(args ...string) error {
		return second(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: "app", ExecId: "e", Process: &kata.Process{Args: args, Cwd: "/"}}))
	}
	// Before the first session: kept until there is one.
	refused("exec", exec("/bin/busybox", "id"), "ExecProcessRequest is blocked by policy: policy-denied: the policy does not allow the request; for a probe or hook: casemate-build agent-policy")
	missing := w.registry.Addr + "/pod/absent:1"
	args := []string{"/bin/sh", "-c", "echo hello from the pod; read x"}
	err := second(g.CreateContainer(within(t), podContainer("gone", missing, args...)))
	if s := status.Convert(err); s.Code() != codes.Internal || s.Message() != "Failed to pull image "+missing+": not found in the registry" {
		t.Errorf("an image that is not there: %v", err)
	}
	told := w.toldOf(t,
		" policy ExecProcessRequest app\n", "error     policy-denied: the policy does not allow the request\n",
		`remedy    casemate-build agent-policy POD.yaml -o policy.rego --exec 'CONTAINER=["/bin/busybox","id"]'`,
		`given     `, "canary-wanted", "printed   canary-print asked for",
		" pull: ", " CreateContainerRequest "+missing+"\n",
	)
	if !regexp.MustCompile(`(?m)^20[0-9-]{8}T[0-9:]{8}Z policy ExecProcessRequest app$`).MatchString(told) {
		t.Errorf("without its time:\n%s", told)
	}
	t.Log(told)
	// The runtime's own use goes on, and what its workload may not run is told under the same reference.
	if _, err := g.CreateContainer(within(t), podContainer("app", image, args...)); err != nil {
		t.Fatal(err)
	}
	refused("another image", second(g.CreateContainer(within(t), podContainer("unsigned", w.unsigned(t, image), args...))), "Image policy rejected: Denied by policy")
	refused("exec", exec("sh"), "ExecProcessRequest is blocked by policy")
	told = w.toldOf(t, " pull: image policy CreateContainerRequest ", `--exec 'CONTAINER=["/bin/busybox","id"]'`, `=["sh"]'`)
	// At the end nothing is left unsaid, and it takes no time.
	refused("exec", exec("last", "words"), "ExecProcessRequest is blocked by policy")
	if _, err := g.DestroySandbox(within(t), &kata.DestroySandboxRequest{}); err != nil {
		t.Error(err)
	}
	select {
	case err := <-g.ended:
		g.ended <- err
	case <-time.After(20 * time.Second):
		t.Fatal("the agent goes on after its sandbox")
	}
	told = w.toldOf(t, `=["last","words"]'`)
	if strings.Contains(told, "canary-secret") {
		t.Errorf("a secret was told:\n%s", told)
	}
	if text := host.String(); strings.Contains(text, "canary") {
		t.Errorf("the host reads\n%s", text)
	}
	// Each of its guests is one list, however many sessions it has had.
	lines := string(w.must(t, "keybroker", "log", "--state", w.broker.State))
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` incident workload=pod .*id=([0-9a-f]{16}) `).FindAllStringSubmatch(lines, -1) {
		ids[m[1]] = true
	}
	if len(ids) != 1 {
		t.Errorf("told under %d references:\n%s", len(ids), lines)
	}
}

// unsigned pushes the pod's image under a name that no signature is for.
func (w *world) unsigned(t *testing.T, image string) string {
	t.Helper()
	name := w.registry.Addr + "/pod-unsigned/app:1"
	out, err := fixture.Run(t.Context(), "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://"+image, "docker://"+name)
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return name
}
