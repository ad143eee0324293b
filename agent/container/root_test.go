// SPDX-License-Identifier: Apache-2.0

//go:build root

package container

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/cgroups"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestExitCodes(t *testing.T) {
	rt := testRuntime(t)
	for _, tt := range []struct {
		script string
		code   int
		signal unix.Signal
	}{
		{"exit 0", 0, 0},
		{"exit 7", 7, 0},
		{"exit 255", 255, 0},
		{"exec /bin/false", 1, 0},
		// A pid namespace's first process does not get fatal signals from inside it;
		// its child does, and the shell passes 128+n on.
		{"sh -c 'kill -TERM $$'; exit $?", 143, 0},
	} {
		t.Run(tt.script, func(t *testing.T) {
			before := time.Now()
			got := run(t, rt, sh(t, tt.script))
			if got.Code != tt.code || got.Signal != tt.signal || got.OOMKilled {
				t.Errorf("%+v, want code %d signal %d; stderr %q", got.Exit, tt.code, tt.signal, got.err)
			}
			if got.At.Before(before) || got.At.After(time.Now()) {
				t.Errorf("ended at %v, outside the test", got.At)
			}
		})
	}
}

func TestStandardStreams(t *testing.T) {
	rt := testRuntime(t)
	got := run(t, rt, sh(t, "echo out; echo err >&2; cat"))
	if got.out != "out\n" || got.err != "err\n" {
		t.Errorf("stdout %q, stderr %q", got.out, got.err)
	}

	t.Run("stdin to its end", func(t *testing.T) {
		r, w := io.Pipe()
		c, out, _ := start(t, rt, "stdin-1", sh(t, "cat; echo end"), r)
		for _, text := range []string{"one\n", "two\n"} {
			if _, err := io.WriteString(w, text); err != nil {
				t.Fatal(err)
			}
			out.await(t, text)
		}
		w.Close()
		if exit, err := c.Wait(testContext(t)); err != nil || exit.Code != 0 {
			t.Errorf("%+v %v", exit, err)
		}
		<-out.closed
		if got, want := out.String(), "one\ntwo\nend\n"; got != want {
			t.Errorf("output %q, want %q", got, want)
		}
	})
	t.Run("stdin is released when the process ends", func(t *testing.T) {
		r, w := io.Pipe()
		c, _, _ := start(t, rt, "stdin-2", sh(t, "exit 3"), r)
		if exit, err := c.Wait(testContext(t)); err != nil || exit.Code != 3 {
			t.Errorf("%+v %v", exit, err)
		}
		if _, err := io.WriteString(w, strings.Repeat("x", 1<<20)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("writing after the exit gives %v", err)
		}
	})
	t.Run("a megabyte arrives whole", func(t *testing.T) {
		got := run(t, rt, sh(t, "head -c 1000000 /dev/zero; exit 4"))
		if len(got.out) != 1000000 || got.Code != 4 {
			t.Errorf("%d bytes, %+v", len(got.out), got.Exit)
		}
	})
	t.Run("a reader that goes away is a closed pipe", func(t *testing.T) {
		ctx := testContext(t)
		c, err := rt.Create(ctx, "epipe", sh(t, "trap '' INT; while echo y; do :; done; exit 9"), Stdio{Stdout: &failing{}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Delete(ctx)
		if err := c.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if exit, err := c.Wait(ctx); err != nil || (exit.Code != 9 && exit.Code != 141) {
			t.Errorf("%+v %v, want the end of a writer to a closed pipe", exit, err)
		}
	})
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("gone") }
func (failing) Close() error              { return nil }

// A container inherits nothing by accident: three descriptors, of which none
// shows O_NONBLOCK, default signal dispositions, an empty mask.
func TestInheritance(t *testing.T) {
	rt := testRuntime(t)
	leak, err := os.Open("/etc")
	if err != nil {
		t.Fatal(err)
	}
	defer leak.Close()
	if _, err := unix.FcntlInt(leak.Fd(), unix.F_SETFD, 0); err != nil { // as careless code would have it
		t.Fatal(err)
	}
	// ls adds the directory that it reads.
	if got := run(t, rt, bundle(t, "/bin/ls", "/proc/self/fd")); got.out != "0\n1\n2\n3\n" {
		t.Errorf("descriptors %q, want 0 to 2 and that of ls", got.out)
	}
	got := run(t, rt, bundle(t, "/bin/cat", "/proc/self/fdinfo/0", "/proc/self/fdinfo/1", "/proc/self/fdinfo/2", "/proc/self/status"))
	seen := 0
	for line := range strings.Lines(got.out) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "flags":
			if flags, err := strconv.ParseInt(value, 8, 64); err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("standard stream has flags %s", value)
			}
			seen++
		case "SigBlk", "SigIgn", "SigCgt":
			// A signal that this process was started with as ignored stays so, as under
			// nohup; nothing may come on top.
			mask, err := strconv.ParseUint(value, 16, 64)
			if err != nil || mask&^ownSignals(t, name) != 0 {
				t.Errorf("%s is %s", name, value)
			}
			seen++
		}
	}
	if seen != 6 {
		t.Errorf("found %d of 6 lines in %q", seen, got.out)
	}
	if got, want := run(t, rt, bundle(t, "/bin/env")).out, "PATH=/bin\nHOME=/root\n"; got != want {
		t.Errorf("environment %q, want %q", got, want)
	}
}

// ownSignals is the mask of signals that this process ignores, and none for the
// others, which no process inherits.
func ownSignals(t *testing.T, name string) uint64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "SigIgn:"); ok && name == "SigIgn" {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			return mask
		}
	}
	return 0
}

func TestProcessSettings(t *testing.T) {
	rt := testRuntime(t)
	// Something of this process' own that must not be inherited.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("17"), 0); err != nil {
		t.Fatal(err)
	}
	defer os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0)
	for _, tt := range []struct {
		name, script, want string
		change             func(*specs.Spec)
	}{
		{"user and groups", "id -u; id -g; id -G", "1000\n1001\n1001 7 8\n", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7, 8}}
		}},
		{"home of the user", "echo $HOME", "/home/user\n", func(s *specs.Spec) { s.Process.User.UID = 1000 }},
		{"cwd is made", "pwd", "/a/new/place\n", func(s *specs.Spec) { s.Process.Cwd = "/a/new/place" }},
		{"env", `echo "$A|$B"`, "1=2|with space\n", func(s *specs.Spec) {
			add(&s.Process.Env, "A=1=2")
			add(&s.Process.Env, "B=with space")
		}},
		{"hostname", "hostname", "casemate-test\n", nil},
		{"umask", "umask", "0077\n", func(s *specs.Spec) { u := uint32(0o077); s.Process.User.Umask = &u }},
		{"rlimit", "ulimit -n; ulimit -c", "77\n0\n", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 77, Hard: 77}, {Type: "RLIMIT_CORE"}}
		}},
		{"no capabilities unless given", "grep -E 'Cap(Prm|Eff|Bnd|Amb)' /proc/self/status", "CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n", func(s *specs.Spec) {
			s.Process.Capabilities = nil
		}},
		{"one capability", "grep CapEff /proc/self/status", "CapEff:\t0000000000000020\n", func(s *specs.Spec) { setCaps(s, "CAP_KILL") }},
		{"no new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{"new privileges", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t0\n", func(s *specs.Spec) { s.Process.NoNewPrivileges = false }},
		{"OOM score is not the agent's", "cat /proc/self/oom_score_adj", "0\n", func(s *specs.Spec) { s.Process.OOMScoreAdj = nil }},
		{"own pids", "echo $$; test -e /proc/" + strconv.Itoa(os.Getpid()) + " || echo hidden", "1\nhidden\n", nil},
		{"null device", "echo lost >/dev/null; cat /dev/null; head -c 3 /dev/zero | wc -c", "3\n", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := sh(t, tt.script)
			if tt.change != nil {
				tt.change(b.Spec)
			}
			if got := run(t, rt, b); got.out != tt.want || got.Code != 0 {
				t.Errorf("output %q, want %q; %+v, stderr %q", got.out, tt.want, got.Exit, got.err)
			}
		})
	}
}

func TestConfinement(t *testing.T) {
	rt := testRuntime(t)
	t.Run("masked paths without the spec's help", func(t *testing.T) {
		b := sh(t, "cat /proc/kcore /proc/keys | wc -c; ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sys/kernel/hostname || echo ro; echo h 2>/dev/null >/proc/sysrq-trigger || echo ro; touch /sys/x 2>/dev/null || echo ro")
		b.Spec.Linux.MaskedPaths, b.Spec.Linux.ReadonlyPaths = nil, nil
		if got, want := run(t, rt, b).out, "0\n0\nro\nro\nro\n"; got != want {
			t.Errorf("output %q, want %q", got, want)
		}
	})
	t.Run("read-only root", func(t *testing.T) {
		b := sh(t, "touch /x 2>/dev/null || echo ro; touch /dev/shm/x && echo shm")
		b.Spec.Root.Readonly = true
		if got, want := run(t, rt, b).out, "ro\nshm\n"; got != want {
			t.Errorf("output %q, want %q", got, want)
		}
	})
	t.Run("devices beyond the defaults cannot be opened", func(t *testing.T) {
		b := sh(t, "mknod /dev/mem2 c 1 1 && head -c 1 /dev/mem2 2>&1; mknod /dev/z c 1 5 && head -c 1 /dev/z | wc -c")
		setCaps(b.Spec, "CAP_MKNOD", "CAP_DAC_OVERRIDE", "CAP_SYS_RAWIO")
		got := run(t, rt, b)
		if !strings.Contains(got.out, "Operation not permitted") || !strings.HasSuffix(got.out, "\n1\n") {
			t.Errorf("output %q", got.out)
		}
	})
	t.Run("a device of the policy can", func(t *testing.T) {
		b := sh(t, "stat -c %t:%T /dev/kmsg2; head -c 0 /dev/kmsg2 && echo open")
		kmsg := specs.LinuxDevice{Path: "/dev/kmsg2", Type: "c", Major: 1, Minor: 11}
		b.Spec.Linux.Devices = []specs.LinuxDevice{kmsg}
		b.Policy.Devices = b.Spec.Linux.Devices
		setCaps(b.Spec, "CAP_SYSLOG")
		if got := run(t, rt, b); !strings.HasSuffix(got.out, "1:b\nopen\n") {
			t.Errorf("output %q %q", got.out, got.err)
		}
	})
	t.Run("bind mount of an allowed source", func(t *testing.T) {
		b := sh(t, "cat /data/file; touch /data/x 2>/dev/null || echo ro")
		volume := filepath.Join(b.Dir, "volume")
		if err := os.Mkdir(volume, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(volume, "file"), []byte("hello\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		mount(specs.Mount{Destination: "/data", Type: "bind", Source: volume, Options: []string{"rbind", "ro"}})(b.Spec, b.Dir)
		if _, err := rt.Create(testContext(t), "binder", b, Stdio{}); !errors.Is(err, ErrRefused) {
			t.Fatalf("without a policy: %v", err)
		}
		b.Policy.MountSources = []string{b.Dir}
		if got, want := run(t, rt, b).out, "hello\nro\n"; got != want {
			t.Errorf("output %q, want %q", got, want)
		}
	})
	t.Run("links in the image lead nowhere (CVE-2015-3629)", func(t *testing.T) {
		b := sh(t, "cat /data/proof")
		outside := t.TempDir()
		if err := os.Symlink(outside, filepath.Join(b.Dir, "rootfs/data")); err != nil {
			t.Fatal(err)
		}
		mount(specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs"})(b.Spec, b.Dir)
		b.Spec.Process.Args = []string{"/bin/sh", "-c", "touch /data/proof; echo done"}
		// Whether libcontainer follows the link inside the root or refuses it: nothing
		// may appear outside.
		c, err := rt.Create(testContext(t), "links", b, Stdio{})
		if err == nil {
			if err := c.Start(testContext(t)); err != nil {
				t.Error(err)
			}
			_, _ = c.Wait(testContext(t))
			if err := c.Delete(testContext(t)); err != nil {
				t.Error(err)
			}
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Errorf("outside the root: %v %v", left, err)
		}
	})
	t.Run("seccomp", func(t *testing.T) {
		b := sh(t, "mkdir /x 2>&1; echo after")
		b.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchAARCH64},
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno}},
		}
		if got := run(t, rt, b); !strings.Contains(got.out, "Operation not permitted") || !strings.HasSuffix(got.out, "after\n") {
			t.Errorf("output %q, stderr %q", got.out, got.err)
		}
	})
	t.Run("seccomp kill", func(t *testing.T) {
		b := sh(t, "sh -c 'mkdir /x'; exit $?")
		b.Spec.Linux.Seccomp = &specs.LinuxSeccomp{
			DefaultAction: specs.ActAllow,
			Syscalls:      []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActKillProcess}},
		}
		if got := run(t, rt, b); got.Code != 128+int(unix.SIGSYS) {
			t.Errorf("%+v %q", got.Exit, got.err)
		}
	})
}

// TestOutOfMemoryIsTold: one event at least, however soon after it the container ends.
func TestOutOfMemoryIsTold(t *testing.T) {
	rt := testRuntime(t)
	for _, tt := range []struct {
		name, script string
		code         int
	}{
		{"first process", "exec tail /dev/zero", 137},
		{"another process", "(exec tail /dev/zero); exit 3", 3},
		{"none", "exit 4", 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := testContext(t)
			b := sh(t, tt.script)
			limit := int64(8 << 20)
			b.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
			c, err := rt.Create(ctx, "oom", b, Stdio{})
			if err != nil {
				t.Fatal(err)
			}
			events, err := c.OOM()
			if err != nil {
				t.Fatal(err)
			}
			count := make(chan int)
			go func() {
				n := 0
				for range events {
					n++
				}
				count <- n
			}()
			if err := c.Start(ctx); err != nil {
				t.Error(err)
			}
			if exit, err := c.Wait(ctx); err != nil || exit.Code != tt.code {
				t.Errorf("got %+v, %v, want code %d", exit, err, tt.code)
			}
			if err := c.Delete(ctx); err != nil {
				t.Error(err)
			}
			if n := <-count; (n > 0) != (tt.code != 4) {
				t.Errorf("%d events", n)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	rt := testRuntime(t)
	t.Run("memory", func(t *testing.T) {
		b := sh(t, "exec tail /dev/zero") // keeps its input in memory
		limit := int64(48 << 20)
		b.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit, Swap: &limit}
		got := run(t, rt, b)
		if got.Code != 137 || got.Signal != unix.SIGKILL || !got.OOMKilled {
			t.Errorf("%+v, stderr %q", got.Exit, got.err)
		}
	})
	t.Run("pids", func(t *testing.T) {
		b := sh(t, "sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & sleep 1000 & echo reached")
		n := int64(3)
		b.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: &n}
		if got := run(t, rt, b); got.Code == 0 || strings.Contains(got.out, "reached") || !strings.Contains(got.err, "fork") {
			t.Errorf("%+v %q %q", got.Exit, got.out, got.err)
		}
	})
	t.Run("cpu", func(t *testing.T) {
		b := sh(t, "i=0; while :; do :; done")
		quota, period := int64(10000), uint64(100000)
		b.Spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: &quota, Period: &period}
		c, _, _ := start(t, rt, "cpu", b, nil)
		used := func() (*cgroups.Stats, time.Duration) {
			stats, err := c.Stats()
			if err != nil {
				t.Fatal(err)
			}
			return stats, time.Duration(stats.CpuStats.CpuUsage.TotalUsage)
		}
		_, before := used() // the start itself took some
		began := time.Now()
		time.Sleep(time.Second)
		stats, after := used()
		if d, wall := after-before, time.Since(began); d == 0 || d > wall/2 {
			t.Errorf("used %v of %v with a quota of a tenth", d, wall)
		}
		if stats.PidsStats.Current == 0 || stats.MemoryStats.Usage.Usage == 0 {
			t.Errorf("empty counters: %+v", stats)
		}
	})
	t.Run("all containers together", func(t *testing.T) {
		paths := rt.group.paths
		var found bool
		for _, path := range paths {
			for _, file := range []string{"memory.limit_in_bytes", "memory.max"} {
				raw, err := os.ReadFile(filepath.Join(path, file))
				if err != nil {
					continue
				}
				n, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
				want, _ := Limits{}.withDefaults()
				if err != nil || n > want.Memory || n < want.Memory-int64(os.Getpagesize()) {
					t.Errorf("%s/%s is %s, want %d", path, file, raw, want.Memory)
				}
				found = true
			}
		}
		if !found {
			t.Errorf("no memory limit in %v", paths)
		}
	})
}

func TestUserNamespace(t *testing.T) {
	rt := testRuntime(t)
	b := sh(t, "id -u; cat /proc/self/uid_map")
	for _, dir := range []string{b.Dir, filepath.Dir(b.Dir)} {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for dir := b.Dir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&1 == 0 {
			t.Skipf("%s is closed to the mapped user", dir)
		}
	}
	add(&b.Spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	b.Spec.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
	b.Spec.Linux.GIDMappings = b.Spec.Linux.UIDMappings
	if got := run(t, rt, b); got.Code != 0 || !strings.HasPrefix(got.out, "0\n") || !strings.Contains(got.out, "100000") {
		t.Errorf("%+v %q %q", got.Exit, got.out, got.err)
	}
}
