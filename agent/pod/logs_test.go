// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
)

// noReads is a policy that allows everything but reading output.
type noReads struct{ lifted atomic.Bool }

func (n *noReads) Allow(_ context.Context, request string, _ proto.Message) error {
	if request == "ReadStreamRequest" && !n.lifted.Load() {
		return &agent.Denial{Reason: agent.Reason{Code: "no", Phrase: "no"}}
	}
	return nil
}

// flood writes more than a stream holds and ends.
func flood(id string) *kata.CreateContainerRequest {
	return request(id, "sh", "-c", "head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2; exit 7")
}

// TestRootRefusedReads: a container whose output the policy keeps from the host runs to its end.
func TestRootRefusedReads(t *testing.T) {
	policy := new(noReads)
	g := startJudgedGuest(t, policy, nil, nil)
	g.sandbox(t)
	g.start(t, flood("app"))
	read := &kata.ReadStreamRequest{ContainerId: "app", ExecId: "app", Len: 32 << 10}
	wantCode(t, "stdout", errOf(g.ReadStdout(within(t), read)), codes.PermissionDenied, "ReadStreamRequest is blocked by policy: no")
	wantCode(t, "stderr", errOf(g.ReadStderr(within(t), read)), codes.PermissionDenied, "ReadStreamRequest is blocked by policy: no")
	wantCode(t, "nobody's", errOf(g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "nobody", Len: 1})), codes.PermissionDenied, "blocked by policy")
	if got := g.wait(t, "app", ""); got != 7 {
		t.Errorf("exit code %d", got)
	}
	policy.lifted.Store(true)
	if got := g.output(t, "app"); len(got) == 0 || len(got) > 128<<10 {
		t.Errorf("%d bytes are left of it, want what a stream holds", len(got))
	}
	g.remove(t, "app")
}

// TestRootNoLogs: where measured configuration keeps logs in, the host reads one line that says so, whatever the
// container writes, and the container runs to its end.
func TestRootNoLogs(t *testing.T) {
	g := startGuest(t)
	g.noLogs.Store(true)
	g.sandbox(t)
	for _, terminal := range []bool{false, true} {
		r := flood("app")
		r.OCI.Process.Args[2] = "echo " + canary + "; " + r.OCI.Process.Args[2]
		r.OCI.Process.Terminal = terminal
		g.start(t, r)
		const want = "casemate: this guest gives no logs: agent.strict is set in its measured configuration\r\n"
		if got := g.output(t, "app"); got != want {
			t.Errorf("stdout: got %.200q", got)
		}
		e, err := g.ReadStderr(within(t), &kata.ReadStreamRequest{ContainerId: "app", Len: 1 << 10})
		if err != nil || len(e.GetData()) != 0 {
			t.Errorf("stderr: got %.200q, %v", e.GetData(), err)
		}
		if got := g.wait(t, "app", ""); got != 7 {
			t.Errorf("exit code %d", got)
		}
		// A further process is no way around.
		g.remove(t, "app")
		g.start(t, request("app", "sleep", "100"))
		exec := &kata.ExecProcessRequest{ContainerId: "app", ExecId: "exec1", Process: &kata.Process{Args: []string{"echo", canary}, Cwd: "/", Env: []string{"PATH=/bin"}, Terminal: terminal}}
		if _, err := g.ExecProcess(within(t), exec); err != nil {
			t.Fatal(err)
		}
		x, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", ExecId: "exec1", Len: 1 << 10})
		if err != nil || bytes.Contains(x.GetData(), []byte(canary)) || string(x.GetData()) != want {
			t.Errorf("exec: got %.200q, %v", x.GetData(), err)
		}
		g.wait(t, "app", "exec1")
		g.remove(t, "app")
	}
}
