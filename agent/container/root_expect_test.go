// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestExpectMovesNobody: the hint leaves this process where it is, also where somebody
// else has put it since.
func TestExpectMovesNobody(t *testing.T) {
	m := testRuntime(t).mover
	if m.file == "" {
		t.Skip("this process' cgroup is in no v2 hierarchy that it sees")
	}
	read := func() string {
		all, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			t.Fatal(err)
		}
		return string(all)
	}
	unmoved := func() {
		t.Helper()
		before := read()
		m.hurry()
		for m.busy.Load() {
			time.Sleep(time.Millisecond)
		}
		if after := read(); after != before {
			t.Errorf("moved from\n%sto\n%s", before, after)
		}
	}
	unmoved()

	elsewhere := filepath.Join(filepath.Dir(m.file), "casemate-test-expect")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	move := func(file string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		move(m.file)
		if err := os.Remove(elsewhere); err != nil {
			t.Error(err)
		}
	})
	move(filepath.Join(elsewhere, "cgroup.procs"))
	unmoved()
}
