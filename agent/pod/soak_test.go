// SPDX-License-Identifier: Apache-2.0

//go:build soak

package pod_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/api/kata"
)

// left is what containers could leave behind in this process' world.
type left struct{ mounts, groups, files, goroutines, children int }

func (g *guest) left(t *testing.T) left {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	l := left{mounts: strings.Count(string(mounts), "\n"), files: len(files), goroutines: runtime.NumGoroutine()}
	name := "casemate-pod-" + strconv.Itoa(os.Getpid())
	_ = filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(path, name) {
			l.groups++
		}
		return nil
	})
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		raw, _ := os.ReadFile(file)
		l.children += len(strings.Fields(string(raw)))
	}
	return l
}

// TestSoakContainers makes, starts and ends many containers over one connection.
// Afterwards the process has what it had after the first few.
func TestSoakContainers(t *testing.T) {
	n, err := strconv.Atoi(os.Getenv("CONTAINERS"))
	if err != nil || n < 1 {
		t.Fatalf("CONTAINERS=%q: want a count; run make soak", os.Getenv("CONTAINERS"))
	}
	g := startGuest(t)
	g.sandbox(t)
	cycle := func(i int) {
		id := fmt.Sprintf("soak%d", i)
		g.start(t, request(id, "sh", "-c", "echo out; sleep 100 & exit 0"))
		if got := g.output(t, id); got != "out\n" {
			t.Fatalf("container %d: got %q", i, got)
		}
		g.wait(t, id, "")
		if _, err := g.SignalProcess(within(t), &kata.SignalProcessRequest{ContainerId: id, Signal: 9}); err != nil {
			t.Fatal(err)
		}
		g.remove(t, id)
	}
	for i := range 5 { // what is kept from the first use on
		cycle(i)
	}
	before, began := g.left(t), time.Now()
	for i := range n {
		cycle(5 + i)
	}
	took := time.Since(began)
	var after left
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if after = g.left(t); after == before {
			break // goroutines that were on their way out are gone
		}
	}
	fmt.Printf("soak: %d containers in %s; before %+v, after %+v\n", n, took.Round(time.Second), before, after)
	if after.mounts > before.mounts || after.groups > before.groups || after.files > before.files || after.goroutines > before.goroutines || after.children > before.children {
		t.Errorf("left behind: before %+v, after %+v", before, after)
	}
}
