// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"context"
	"errors"
	"fmt"
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

func TestStateDirectory(t *testing.T) {
	needRoot(t)
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{"", "relative", open, link} {
		if rt, err := New(Config{Root: root, Cgroup: "casemate-test-state"}); err == nil {
			rt.Close(testContext(t))
			t.Errorf("state directory %q is accepted", root)
		}
	}
	for _, group := range []string{"/x", "a/b", "..", ".x", strings.Repeat("x", 65)} {
		if rt, err := New(Config{Root: t.TempDir(), Cgroup: group}); err == nil {
			rt.Close(testContext(t))
			t.Errorf("cgroup %q is accepted", group)
		}
	}
}

func TestFailedCreateLeavesNothing(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	name := rt.group.name
	for what, change := range map[string]func(*specs.Spec){
		"program missing":     func(s *specs.Spec) { s.Process.Args = []string{"/no/such"} },
		"program not runable": func(s *specs.Spec) { s.Process.Args = []string{"/etc/passwd"} },
		"cwd is a file":       func(s *specs.Spec) { s.Process.Cwd = "/etc/passwd" },
		"broken env":          func(s *specs.Spec) { s.Process.Env = []string{"no equals sign"} },
		"unknown uid in user namespace": func(s *specs.Spec) {
			add(&s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1}}
			s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 10}}
			s.Process.User.UID = 5
		},
		"mount fails in the container": func(s *specs.Spec) {
			mount(specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"size=nonsense"}})(s, "")
		},
		"memory limit too small to start": func(s *specs.Spec) {
			n := int64(4096)
			s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &n, Swap: &n}
		},
		"sysctl of the guest": func(s *specs.Spec) { s.Linux.Sysctl = map[string]string{"kernel.panic": "1"} },
		"namespaces of a stranger": func(s *specs.Spec) {
			dropNamespace(s, specs.IPCNamespace)
			add(&s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.IPCNamespace, Path: "/etc/passwd"})
		},
	} {
		t.Run(what, func(t *testing.T) {
			b := sh(t, "true")
			change(b.Spec)
			b.Policy.JoinNamespaces = []specs.LinuxNamespace{{Type: specs.IPCNamespace, Path: "/etc/passwd"}}
			before := take(t, name)
			out := newSink()
			c, err := rt.Create(ctx, "failing", b, Stdio{Stdout: out, Stdin: io.NopCloser(strings.NewReader("x"))})
			if err == nil {
				c.Delete(ctx)
				t.Fatal("create succeeded")
			}
			select {
			case <-out.closed:
				t.Error("the caller's stream was closed by a failed create")
			default:
			}
			before.compare(t, name)
			if left, err := os.ReadDir(rt.state); err != nil || len(left) > 0 {
				t.Errorf("state: %v %v", left, err)
			}
		})
	}
	if got := run(t, rt, sh(t, "echo fine")); got.out != "fine\n" {
		t.Errorf("after the failures: %q", got.out)
	}
}

// A create that is cancelled at any moment leaves nothing, and one that hangs in
// the middle is ended.
func TestCancelledCreateLeavesNothing(t *testing.T) {
	rt := testRuntime(t)
	name := rt.group.name
	b := sh(t, "true")
	began := time.Now()
	c, err := rt.Create(testContext(t), "measure", b, Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	whole := time.Since(began)
	if err := c.Delete(testContext(t)); err != nil {
		t.Fatal(err)
	}
	before := take(t, name)
	cancelled := 0
	const steps = 25
	for i := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), whole*time.Duration(i)/steps)
		c, err := rt.Create(ctx, "cancelled", b, Stdio{Stdout: newSink()})
		cancel()
		if err == nil {
			if err := c.Delete(testContext(t)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		cancelled++
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("cancelled after %d/%d: %v", i, steps, err)
		}
	}
	if cancelled < steps/4 {
		t.Errorf("only %d of %d creates were cancelled", cancelled, steps)
	}
	before.compare(t, name)
	if left, err := os.ReadDir(rt.state); err != nil || len(left) > 0 {
		t.Errorf("state: %v %v", left, err)
	}
}

// An image can make a creation hang: libcontainer looks for a home directory in
// its /etc/passwd, and opening a named pipe waits for a writer.
func TestHangingCreateIsEnded(t *testing.T) {
	rt := testRuntime(t)
	b := sh(t, "true")
	passwd := filepath.Join(b.Dir, "rootfs/etc/passwd")
	if err := os.Remove(passwd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(passwd, 0o666); err != nil {
		t.Fatal(err)
	}
	before := take(t, rt.group.name)
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c, err := rt.Create(ctx, "hanging", b, Stdio{})
	if err == nil {
		c.Delete(testContext(t))
		t.Fatal("create succeeded")
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	before.compare(t, rt.group.name)
}

// A start whose reader never comes is ended by its context.
func TestStartHonoursContext(t *testing.T) {
	rt := testRuntime(t)
	c, err := rt.Create(testContext(t), "frozen", sh(t, "true"), Stdio{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Delete(testContext(t))
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := c.Start(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start of a frozen container: %v", err)
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseDeletesEverything(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	var all []*Container
	for i := range 3 {
		c, err := rt.Create(ctx, fmt.Sprintf("close-%d", i), sh(t, "sleep 1000"), Stdio{})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if err := c.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, c)
	}
	if err := rt.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 137 {
			t.Errorf("%s: %+v %v", c.ID(), exit, err)
		}
	}
	if _, err := rt.Create(ctx, "late", sh(t, "true"), Stdio{}); err == nil {
		t.Error("created after Close")
	}
}

// 50 lives of a container, some at the same time, leave nothing at all.
func TestCyclesLeaveNothing(t *testing.T) {
	rt := testRuntime(t)
	ctx := testContext(t)
	b := sh(t, "echo $$; exit 3")
	life := func(id string) error {
		out := newSink()
		c, err := rt.Create(ctx, id, b, Stdio{Stdin: io.NopCloser(strings.NewReader("")), Stdout: out, Stderr: newSink()})
		if err != nil {
			return err
		}
		defer c.Delete(ctx)
		if err := c.Start(ctx); err != nil {
			return err
		}
		if exit, err := c.Wait(ctx); err != nil || exit.Code != 3 {
			return fmt.Errorf("%+v: %w", exit, err)
		}
		if err := c.Delete(ctx); err != nil {
			return err
		}
		if out.String() != "1\n" {
			return fmt.Errorf("output %q", out)
		}
		return nil
	}
	if err := life("first-of-all"); err != nil {
		t.Fatal(err)
	}
	before := take(t, rt.group.name)
	threads := threadCount(t)
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 25 {
				if err := life(fmt.Sprintf("cycle-%d-%d", worker, i)); err != nil {
					t.Errorf("life %d of worker %d: %v", i, worker, err)
					return
				}
			}
		}()
	}
	wg.Wait()
	before.compare(t, rt.group.name)
	after := take(t, rt.group.name)
	t.Logf("after 50 lives: %d mounts, %d cgroups, %d descriptors, %d goroutines, %d children, %d threads; before: %d, %d, %d, %d, %d, %d",
		after.mounts, after.cgroups, after.fds, after.goroutines, after.children, threadCount(t),
		before.mounts, before.cgroups, before.fds, before.goroutines, before.children, threads)
	if n := threadCount(t); n > threads+8 {
		t.Errorf("%d threads, %d before", n, threads)
	}
}

func threadCount(t *testing.T) int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}
