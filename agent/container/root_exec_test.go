// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestCancelledExecIsNotHandedAnothersFile: a caller that goes away while a process is being started does not make the
// numbers that the process is about to be given free for other files of this program's.
func TestCancelledExecIsNotHandedAnothersFile(t *testing.T) {
	rt := testRuntime(t)
	b := sh(t, "sleep 100")
	c, _, _ := start(t, rt, "cancelled", b, nil)
	// The start waits where libcontainer looks for a home directory.
	passwd := filepath.Join(b.Dir, "rootfs/etc/passwd")
	if err := errors.Join(os.Remove(passwd), unix.Mkfifo(passwd, 0o666)); err != nil {
		t.Fatal(err)
	}
	pipes := func() (n int) {
		list, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range list {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, "pipe:") {
				n++
			}
		}
		return n
	}
	before := pipes()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	out := newSink()
	if _, err := c.Exec(ctx, &specs.Process{Args: []string{"/bin/true"}, Cwd: "/"}, Stdio{Stdout: out, Stderr: out}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if during := pipes(); during < before+4 {
		t.Errorf("%d pipes before, %d while the start goes on: those of the process are closed", before, during)
	}
	f, err := os.OpenFile(passwd, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for end := time.Now().Add(10 * time.Second); pipes() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d pipes before, %d after", before, pipes())
		}
	}
}
