// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"os"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestRootExecBeforeStartIsTold: a host that creates a container and never starts it runs nothing of the image's in it
// that was not told of.
func TestRootExecBeforeStartIsTold(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	exec := func(container string) error {
		return errOf(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: container, ExecId: "probe", Process: &kata.Process{Args: []string{"true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}}))
	}
	for _, id := range []string{"told", "untold"} {
		if _, err := g.CreateContainer(within(t), request(id, "sleep", "100")); err != nil {
			t.Fatal(err)
		}
	}
	if err := exec("told"); err != nil {
		t.Fatal(err)
	}
	if len(g.starts) != 1 || g.starts[0].ID != "told" {
		t.Errorf("told of %+v", g.starts)
	}
	g.wait(t, "told", "probe")
	if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "told"}); err != nil || len(g.starts) != 1 {
		t.Errorf("started: %v, told of %+v", err, g.starts)
	}
	g.images.mu.Lock()
	g.unrecorded = true
	g.images.mu.Unlock()
	wantCode(t, "a program that cannot be told of", exec("untold"), codes.FailedPrecondition, "cannot be recorded")
	g.remove(t, "untold")
	g.remove(t, "told")
}

// TestRootStartedAgainAndAgain: a host that asks for a start over and over takes no descriptor with each.
func TestRootStartedAgainAndAgain(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	g.start(t, request("app", "sleep", "100"))
	open := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := open()
	for range 20 {
		if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err == nil {
			t.Fatal("a container was started twice")
		}
	}
	if after := open(); after > before+5 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	g.remove(t, "app")
}
