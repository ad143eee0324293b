// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// These tests create containers: they need root, a cgroup file system at
// /sys/fs/cgroup (v1, hybrid or v2) and a statically linked busybox, at the path
// in CASEMATE_TEST_BUSYBOX or at /bin/busybox.

const busyboxEnv = "CASEMATE_TEST_BUSYBOX"

// limit is far more than any single step takes, in a slow VM too.
const limit = 2 * time.Minute

// isolatedEnv marks the test program that runs in a mount namespace of its own.
const isolatedEnv = "CASEMATE_CONTAINER_TEST_ISOLATED"

// runIsolated runs the tests in a mount namespace that nobody else mounts things
// in, since they count mounts.
func runIsolated() (code int, done bool) {
	if os.Geteuid() != 0 || os.Getenv(isolatedEnv) != "" || slices.ContainsFunc(os.Args, func(arg string) bool {
		return strings.HasPrefix(arg, "-test.fuzz") // its workers have descriptors to inherit
	}) {
		return 0, false
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Pdeathsig follows the thread, which is the main one: see Init.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "running the tests in their own mount namespace:", err)
		return 1, true
	}
	return cmd.ProcessState.ExitCode() & 0xff, true // -1, a signal, becomes 255
}

func needRoot(t testing.TB) (busybox string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("creating containers needs root")
	}
	if busybox = os.Getenv(busyboxEnv); busybox == "" {
		busybox = "/bin/busybox"
	}
	if _, err := os.Stat(busybox); err != nil {
		t.Skipf("no busybox for the containers' root file system: %v (%s names another path)", err, busyboxEnv)
	}
	return busybox
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

var warm sync.Once

func warmUp(t testing.TB) {
	warm.Do(func() { // what libcontainer and the os package keep from their first use on
		rt, err := New(Config{Root: filepath.Join(t.TempDir(), "state"), Cgroup: "casemate-warm-" + strconv.Itoa(os.Getpid())})
		if err != nil {
			t.Fatal(err)
		}
		run(t, rt, sh(t, "true"))
		if err := rt.Close(testContext(t)); err != nil {
			t.Fatal(err)
		}
	})
}

// testRuntime is a Runtime with a state directory and a cgroup of its own. At the
// end of the test it is closed, and nothing may be left.
func testRuntime(t testing.TB) *Runtime {
	t.Helper()
	needRoot(t)
	warmUp(t)
	name := "casemate-test-" + strconv.Itoa(os.Getpid())
	cfg := Config{Root: filepath.Join(t.TempDir(), "state"), Cgroup: name, Log: testLog(t)}
	before := take(t, name)
	rt, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(testContext(t)); err != nil {
			t.Errorf("closing: %v", err)
		}
		before.compare(t, name)
		if left, err := os.ReadDir(cfg.Root); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("state directory is left: %v %v", left, err)
		}
	})
	return rt
}

// testLog shows libcontainer's debug messages of a failed test.
func testLog(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return nil
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

// bundle has a root file system with busybox and a spec that runs args in it.
func bundle(t testing.TB, args ...string) Bundle {
	t.Helper()
	busybox := needRoot(t)
	dir, spec := testBundle(t)
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, busybox, filepath.Join(root, "bin/busybox"), 0o755)
	for _, name := range []string{
		"sh", "cat", "cp", "dd", "echo", "false", "grep", "head", "id", "kill", "ls", "mkdir", "mknod", "mount",
		"printf", "pwd", "seq", "setsid", "sleep", "stat", "stty", "tail", "touch", "true", "tty", "yes", "env", "hostname", "wc",
	} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	passwd := "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(passwd), 0o644); err != nil {
		t.Fatal(err)
	}
	spec.Process.Args = args
	spec.Process.Env = []string{"PATH=/bin"}
	spec.Root.Readonly = false
	spec.Hostname = "casemate-test"
	return Bundle{Dir: dir, Spec: spec}
}

// sh is a bundle that runs a shell script.
func sh(t testing.TB, script string) Bundle { return bundle(t, "/bin/sh", "-c", script) }

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, raw, mode); err != nil {
		t.Fatal(err)
	}
}

// sinkSize is more than any test looks at; the rest is dropped.
const sinkSize = 4 << 20

// sink collects one output stream.
type sink struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	closed chan struct{}
	once   sync.Once
	ended  time.Time
}

func newSink() *sink { return &sink{closed: make(chan struct{})} }

func (s *sink) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(p[:min(len(p), sinkSize-s.buf.Len())])
	return len(p), nil
}

func (s *sink) Close() error {
	s.once.Do(func() {
		s.ended = time.Now()
		close(s.closed)
	})
	return nil
}

func (s *sink) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// await waits until the stream contains text.
func (s *sink) await(t testing.TB, text string) {
	t.Helper()
	for end := time.Now().Add(limit); !strings.Contains(s.String(), text); time.Sleep(5 * time.Millisecond) {
		select {
		case <-s.closed:
			if !strings.Contains(s.String(), text) {
				t.Fatalf("output ended without %q: %q", text, s)
			}
			return
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("no %q in output after %v: %q", text, limit, s)
		}
	}
}

// result is what a container that has ended left.
type result struct {
	Exit
	out, err string
}

// start creates and starts a container whose output goes to the two sinks.
func start(t testing.TB, rt *Runtime, id string, b Bundle, stdin io.ReadCloser) (c *Container, out, errs *sink) {
	t.Helper()
	ctx := testContext(t)
	out, errs = newSink(), newSink()
	c, err := rt.Create(ctx, id, b, Stdio{Stdin: stdin, Stdout: out, Stderr: errs})
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	t.Cleanup(func() {
		if err := c.Delete(testContext(t)); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	if err := c.Start(ctx); err != nil {
		t.Fatalf("start: %v", err)
	}
	return c, out, errs
}

// run lets a container run to its end and deletes it.
func run(t testing.TB, rt *Runtime, b Bundle) result {
	t.Helper()
	c, out, errs := start(t, rt, "run-"+strconv.FormatInt(time.Now().UnixNano(), 36), b, nil)
	ctx := testContext(t)
	exit, err := c.Wait(ctx)
	if err != nil {
		t.Fatalf("wait: %v", err)
	}
	if err := c.WaitOutput(ctx); err != nil {
		t.Fatalf("wait for output: %v", err)
	}
	if err := c.Delete(ctx); err != nil {
		t.Fatalf("delete: %v", err)
	}
	return result{exit, out.String(), errs.String()}
}

// census counts what a container could leave behind.
type census struct {
	mounts, cgroups, fds, goroutines, children int
	names                                      []string // of the descriptors
}

func take(t testing.TB, cgroup string) census {
	t.Helper()
	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	c := census{mounts: bytes.Count(mountinfo, []byte("\n")), goroutines: runtime.NumGoroutine(), children: len(children(t))}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if name, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil {
			c.names = append(c.names, fd.Name()+" "+name)
		}
	}
	c.fds = len(c.names)
	for _, root := range cgroupRoots(t) {
		_ = filepath.WalkDir(filepath.Join(root, cgroup), func(_ string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				c.cgroups++
			}
			return nil
		})
	}
	return c
}

func cgroupRoots(t testing.TB) []string {
	if cgroups.IsCgroup2UnifiedMode() {
		return []string{"/sys/fs/cgroup"}
	}
	roots, err := filepath.Glob("/sys/fs/cgroup/*")
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

// children are the pids of this process' children, dead ones included.
func children(t testing.TB) (pids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // it ended
		}
		_, rest, _ := strings.Cut(string(raw), ") ")
		var state string
		var ppid int
		if _, err := fmt.Sscan(rest, &state, &ppid); err == nil && ppid == os.Getpid() {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			pids = append(pids, pid)
		}
	}
	return pids
}

// compare waits a moment for what ends by itself and then wants no more than was
// there before.
func (before census) compare(t testing.TB, cgroup string) {
	t.Helper()
	var after census
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		runtime.GC()
		after = take(t, cgroup)
		if after.mounts <= before.mounts && after.cgroups <= before.cgroups && after.fds <= before.fds &&
			after.goroutines <= before.goroutines && after.children <= before.children {
			return
		}
	}
	t.Errorf("left behind: %d mounts, %d cgroups, %d descriptors, %d goroutines, %d children",
		after.mounts-before.mounts, after.cgroups-before.cgroups, after.fds-before.fds,
		after.goroutines-before.goroutines, after.children-before.children)
	for _, name := range after.names {
		if !slices.Contains(before.names, name) {
			t.Logf("descriptor %s", name)
		}
	}
	if after.goroutines > before.goroutines {
		buf := make([]byte, 1<<20)
		t.Logf("%s", buf[:runtime.Stack(buf, true)])
	}
}

func setCaps(s *specs.Spec, caps ...string) {
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
}

// alive says whether pid runs a program, as opposed to being gone or a zombie.
func alive(pid int) bool { return unix.Kill(pid, 0) == nil }
