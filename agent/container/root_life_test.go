// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestSignals(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	t.Run("to the first process", func(t *testing.T) {
		c, out, _ := start(t, rt, "sig-term", sh(t, "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done"), nil)
		out.await(t, "ready")
		if err := c.Signal(unix.SIGTERM, false); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 5 || exit.Signal != 0 {
			t.Errorf("%+v %v", exit, err)
		}
		if err := c.Signal(unix.SIGTERM, false); !errors.Is(err, ErrNotRunning) {
			t.Errorf("signal after the end: %v", err)
		}
		if err := c.Signal(unix.SIGKILL, true); !errors.Is(err, ErrNotRunning) {
			t.Errorf("signal to all after the end: %v", err)
		}
	})
	t.Run("kill", func(t *testing.T) {
		c, _, _ := start(t, rt, "sig-kill", sh(t, "sleep 1000"), nil)
		if err := c.Signal(unix.SIGKILL, false); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 137 || exit.Signal != unix.SIGKILL || exit.OOMKilled {
			t.Errorf("%+v %v", exit, err)
		}
	})
	t.Run("all", func(t *testing.T) {
		c, out, _ := start(t, rt, "sig-all", sh(t, "trap 'echo first' USR1; sh -c \"trap 'echo second' USR1; echo ready; while :; do sleep 0.1; done\" & while :; do sleep 0.1; done"), nil)
		out.await(t, "ready")
		if err := c.Signal(unix.SIGUSR1, true); err != nil {
			t.Fatal(err)
		}
		out.await(t, "first")
		out.await(t, "second")
	})
	t.Run("kill all without a freezer", func(t *testing.T) {
		c, out, _ := start(t, rt, "sig-unfrozen", sh(t, "echo ready; while :; do sleep 1000 & sleep 0.01; done"), nil)
		out.await(t, "ready")
		if err := c.killUnfrozen(); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 137 {
			t.Errorf("%+v %v", exit, err)
		}
		if pids, err := c.Pids(); err != nil || len(pids) != 0 {
			t.Errorf("%v are left, %v", pids, err)
		}
	})
	t.Run("kill before start", func(t *testing.T) {
		c, err := rt.Create(ctx, "sig-early", sh(t, "echo never"), Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Delete(ctx)
		if err := c.Signal(unix.SIGKILL, false); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 137 {
			t.Errorf("%+v %v", exit, err)
		}
		if err := c.Start(ctx); !errors.Is(err, ErrNotRunning) {
			t.Errorf("start of a dead container: %v", err)
		}
	})
	t.Run("no such signal", func(t *testing.T) {
		c, _, _ := start(t, rt, "sig-none", sh(t, "sleep 1000"), nil)
		for _, sig := range []unix.Signal{-1, 65, 1 << 20} {
			if err := c.Signal(sig, false); err == nil || errors.Is(err, ErrNotRunning) {
				t.Errorf("signal %d: %v", int(sig), err)
			}
		}
	})
}

func TestPause(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	c, out, _ := start(t, rt, "pause", sh(t, "trap 'echo usr' USR1; while :; do echo -n .; sleep 0.01; done"), nil)
	out.await(t, ".")
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(100 * time.Millisecond) // what is in the pipe arrives
	still := out.String()
	if err := c.Signal(unix.SIGUSR1, true); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	if got := out.String(); got != still {
		t.Errorf("a paused container wrote %q", got[len(still):])
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
	out.await(t, "usr")
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Signal(unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if exit, err := c.Wait(ctx); err != nil || exit.Code != 137 {
		t.Errorf("kill of a paused container: %+v %v", exit, err)
	}
	if err := c.Pause(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("pause after the end: %v", err)
	}
}

func TestDeletePaused(t *testing.T) {
	rt := testRuntime(t)
	c, _, _ := start(t, rt, "paused", sh(t, "sleep 1000"), nil)
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

func TestWaiters(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	r, w := io.Pipe()
	c, _, _ := start(t, rt, "waiters", sh(t, "cat; exit 42"), r)
	var wg sync.WaitGroup
	got := make([]Exit, 100)
	for i := range got {
		wg.Add(1)
		go func() {
			defer wg.Done()
			exit, err := c.Wait(ctx)
			if err != nil {
				t.Error(err)
			}
			got[i] = exit
		}()
	}
	short, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
	defer cancel()
	if _, err := c.Wait(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait with a deadline: %v", err)
	}
	w.Close()
	wg.Wait()
	if err := c.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	late, err := c.Wait(short) // after Delete, with a context that has ended
	if err != nil || late.Code != 42 {
		t.Errorf("late wait: %+v %v", late, err)
	}
	for i, exit := range got {
		if exit != late {
			t.Errorf("waiter %d got %+v, want %+v", i, exit, late)
		}
	}
}

// The end of a stream must not wait for a grandchild that holds the pipe, whether
// that is silent or writes for ever.
func TestGrandchildHoldsThePipe(t *testing.T) {
	rt := testRuntime(t)
	for name, script := range map[string]string{
		"silent":  "(sleep 1000 &) ; echo said; exit 6",
		"writing": "(yes &) ; echo said; exit 6",
	} {
		t.Run(name, func(t *testing.T) {
			// A shared pid namespace lets the grandchild live on.
			b := sh(t, script)
			dropNamespace(b.Spec, specs.PIDNamespace)
			b.Policy.ShareNamespaces = []specs.LinuxNamespaceType{specs.PIDNamespace}
			b.Policy.Unmasked = true
			c, out, errs := start(t, rt, "holder-"+name, b, nil)
			exit, err := c.Wait(testContext(t))
			if err != nil || exit.Code != 6 {
				t.Fatalf("%+v %v", exit, err)
			}
			if err := c.WaitOutput(testContext(t)); err != nil {
				t.Fatal(err)
			}
			for stream, s := range map[string]*sink{"stdout": out, "stderr": errs} {
				<-s.closed
				if late := s.ended.Sub(exit.At); late > 500*time.Millisecond {
					t.Errorf("%s ended %v after the exit", stream, late)
				}
			}
			if !strings.Contains(out.String(), "said\n") {
				t.Errorf("output %.20q lacks what the process itself wrote", out)
			}
			pids, err := c.Pids()
			if err != nil || (len(pids) == 0 && name == "silent") { // the other ends with the pipe
				t.Fatalf("the grandchild is not there: %v %v", pids, err)
			}
			if err := c.Delete(testContext(t)); err != nil {
				t.Fatal(err)
			}
			for _, pid := range pids {
				for end := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("process %d survived Delete", pid)
					}
				}
			}
		})
	}
}

// A consumer that is slow, but not gone, loses nothing that was written before the
// process ended.
func TestSlowConsumerLosesNothing(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	r, w := io.Pipe()
	c, err := rt.Create(ctx, "slow", sh(t, "seq 1 12000"), Stdio{Stdout: w})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(ctx)
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(drainTime + 200*time.Millisecond)
	got, err := io.ReadAll(r)
	if err != nil || strings.Count(string(got), "\n") != 12000 || !strings.HasSuffix(string(got), "\n12000\n") {
		t.Errorf("got %d lines, %v", strings.Count(string(got), "\n"), err)
	}
}

func TestTerminal(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	b := sh(t, "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo all; cat; echo end; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done")
	b.Spec.Process.Terminal = true
	b.Spec.Process.ConsoleSize = &specs.Box{Width: 101, Height: 33}
	r, w := io.Pipe()
	c, out, errs := start(t, rt, "tty", b, r)
	out.await(t, "all\r\n")
	if got := out.String(); !strings.Contains(got, "/dev/pts/0\r\n33 101\r\nall\r\n") {
		t.Errorf("output %q", got)
	}
	io.WriteString(w, "typed\n\x04") // ^D ends cat
	out.await(t, "ready")
	if got := out.String(); strings.Count(got, "typed\r\n") != 2 { // echoed, and printed
		t.Errorf("output %q", got)
	}
	if err := c.Resize(77, 22); err != nil {
		t.Fatal(err)
	}
	out.await(t, "22 77")
	if err := c.Signal(unix.SIGKILL, false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitOutput(ctx); err != nil {
		t.Fatal(err)
	}
	if errs.String() != "" {
		t.Errorf("stderr of a terminal: %q", errs)
	}

	t.Run("without readers", func(t *testing.T) {
		b := sh(t, "seq 1 20000; exit 3")
		b.Spec.Process.Terminal = true
		c, err := rt.Create(ctx, "tty-quiet", b, Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Delete(ctx)
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 3 {
			t.Errorf("%+v %v", exit, err)
		}
	})
	t.Run("resize without one", func(t *testing.T) {
		c, _, _ := start(t, rt, "no-tty", sh(t, "true"), nil)
		if err := c.Resize(1, 1); err == nil {
			t.Error("resized a pipe")
		}
	})
}

func TestIDs(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	b := sh(t, "sleep 1000")
	for _, id := range []string{"", "a", "..", "../../etc", "a/b", "-x", "a\x00b", strings.Repeat("x", 129)} {
		if c, err := rt.Create(ctx, id, b, Stdio{}); !errors.Is(err, ErrRefused) || c != nil {
			t.Errorf("id %.20q: %v", id, err)
		}
	}
	c, _, _ := start(t, rt, "twice", b, nil)
	if _, err := rt.Create(ctx, "twice", b, Stdio{}); !errors.Is(err, ErrExists) {
		t.Errorf("second create: %v", err)
	}
	if !alive(c.Pid()) {
		t.Error("the second create ended the first container")
	}
	if err := c.Start(ctx); err == nil {
		t.Error("started twice")
	}
	if err := c.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Delete(ctx); err != nil {
		t.Errorf("second delete: %v", err)
	}
	again, _, _ := start(t, rt, "twice", b, nil)
	if err := again.Delete(ctx); err != nil {
		t.Errorf("delete of the second of that name: %v", err)
	}

	t.Run("state of another process is not touched", func(t *testing.T) {
		state := filepath.Join(rt.state, "foreign")
		if err := os.Mkdir(state, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := rt.Create(ctx, "foreign", b, Stdio{}); !errors.Is(err, ErrExists) {
			t.Errorf("create over foreign state: %v", err)
		}
		if err := os.Remove(state); err != nil {
			t.Errorf("foreign state: %v", err)
		}
	})
	t.Run("at once", func(t *testing.T) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		var won []*Container
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				c, err := rt.Create(ctx, "race", b, Stdio{})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won = append(won, c)
				} else if !errors.Is(err, ErrExists) {
					t.Errorf("create: %v", err)
				}
			}()
		}
		wg.Wait()
		if len(won) != 1 {
			t.Errorf("%d of 4 creates with one id succeeded", len(won))
		}
		for _, c := range won {
			if err := c.Delete(ctx); err != nil {
				t.Error(err)
			}
		}
	})
}

// A program that is PID 1 has its reaper before it has a Runtime.
func TestGivenReaper(t *testing.T) {
	needRoot(t)
	warmUp(t)
	const name = "casemate-test-reaper"
	before := take(t, name)
	defer before.compare(t, name)
	r := NewReaper(nil)
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	rt, err := New(Config{Root: filepath.Join(t.TempDir(), "state"), Cgroup: name, Reaper: r})
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, rt, sh(t, "exit 8")); got.Code != 8 {
		t.Errorf("%+v", got.Exit)
	}
	if err := rt.Close(ctx); err != nil {
		t.Error(err)
	}
}
