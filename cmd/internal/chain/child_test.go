// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/api/kata"
)

// otherInit is a first process that starts the agent as a service, passes SIGTERM on and ends as the agent does.
const otherInit = `mount -t tmpfs run /run; "$0" "$@" & p=$!; trap 'kill -TERM $p' TERM; wait $p; code=$?
while kill -0 $p 2>/dev/null; do wait $p; code=$?; done; exit $code`

// TestPodUnderAnotherInit: the agent is a child of another first process, which stops it as a service manager does, with
// containers running: their processes and control groups go with it. The container is in a group of its own of each
// controller, under version 1 of control groups as under version 2.
func TestPodUnderAnotherInit(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-pod.toml", "pod", w.policy, podPolicy)
	w.register(t, "pod", d.Digest)
	image := w.image(t, "pod")
	g := w.agentUnder(t, d, []string{"--mount", "--propagation", "private", "--pid", "--fork", "--mount-proc", "--kill-child"}, otherInit)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*kata.CreateContainerRequest{podContainer("sandbox0", "pause", "/pause"), podContainer("child-of-init", image, "/bin/sh", "-c", "echo hello from the pod; read x")} {
		if _, err := g.CreateContainer(within(t), r); err != nil {
			t.Fatal(err)
		}
		if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "child-of-init", Len: 1000}); err != nil || string(out.Data) != "hello from the pod\n" {
		t.Errorf("output: got %q, %v", out.GetData(), err)
	}
	pid, groups := inGroup(t, "child-of-init")
	if pid == 0 {
		t.Fatal("no process is in the container's control group")
	}
	version := "1"
	if isUnified() {
		version = "2"
	}
	for _, dir := range groups {
		if _, err := os.Stat(dir); err != nil {
			t.Errorf("control group: %v", err)
		}
	}
	if version == "1" && !slices.ContainsFunc(groups, func(g string) bool { return strings.HasPrefix(g, "/sys/fs/cgroup/memory/") }) {
		t.Errorf("no memory group: %q", groups)
	}
	t.Logf("control groups of version %s: %d of the container", version, len(groups))
	init := g.first(t)
	agent := childrenOf(t, init)
	if len(agent) != 1 || numberInside(t, agent[0]) == 1 {
		t.Fatalf("processes %d under the first one", agent)
	}
	if err := unix.Kill(init, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-g.ended:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		g.ended <- err
	case <-time.After(30 * time.Second):
		t.Fatal("the agent goes on after SIGTERM")
	}
	if left, _ := inGroup(t, "child-of-init"); left != 0 {
		t.Errorf("process %d of the container is left", left)
	}
	for _, dir := range groups {
		if _, err := os.Stat(dir); !os.IsNotExist(err) {
			t.Errorf("control group %s is left: %v", dir, err)
		}
	}
}

// first is the first process of the namespace, as this one sees it: the child of unshare, whose child the agent is.
func (g *agentGuest) first(t *testing.T) int {
	t.Helper()
	children := childrenOf(t, g.pid)
	if len(children) != 1 {
		t.Fatalf("processes %d under unshare", children)
	}
	return children[0]
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/task/" + strconv.Itoa(pid) + "/children")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, s := range strings.Fields(string(raw)) {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, n)
	}
	return out
}

// numberInside is a process's number in its own PID namespace.
func numberInside(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(raw), "NSpid:")
	line, _, _ := strings.Cut(rest, "\n")
	fields := strings.Fields(line)
	n, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// inGroup finds a process in the control groups of a container, and the directories of those.
func inGroup(t *testing.T, id string) (pid int, dirs []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(raw)) {
			parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(parts) != 3 || filepath.Base(parts[2]) != id || parts[1] == "" && !isUnified() {
				continue
			}
			pid, _ = strconv.Atoi(filepath.Base(filepath.Dir(file)))
			dirs = append(dirs, filepath.Join("/sys/fs/cgroup", strings.TrimPrefix(parts[1], "name="), parts[2]))
		}
		if pid != 0 {
			return pid, dirs
		}
	}
	return 0, nil
}

func isUnified() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}
