// SPDX-License-Identifier: Apache-2.0

//go:build vm

package guest

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// These tests run inside the guest of rootfs/vmtest, beside the first process that did the boot.

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestVMCleanStart: the harness puts words on the kernel command line that make arguments and environment.
func TestVMCleanStart(t *testing.T) {
	if !strings.Contains(read(t, "/proc/cmdline"), "_LIBCONTAINER_INITPIPE=0") {
		t.Fatal("the command line is not the hostile one")
	}
	if got := read(t, "/proc/1/environ"); got != "" {
		t.Errorf("environment of the first process: %q", got)
	}
	if got := read(t, "/proc/1/cmdline"); got != "casemate\x00" {
		t.Errorf("arguments of the first process: %q", got)
	}
}

func TestVMMounts(t *testing.T) {
	options := make(map[string][]string)
	for line := range strings.Lines(read(t, "/proc/1/mounts")) {
		f := strings.Fields(line)
		options[f[1]] = append(strings.Split(f[3], ","), f[2])
	}
	for _, m := range append(earlyMounts(), lateMounts()...) {
		want := []string{m.fstype, "nosuid"}
		if m.flags&unix.MS_NODEV != 0 {
			want = append(want, "nodev")
		}
		if m.flags&unix.MS_NOEXEC != 0 {
			want = append(want, "noexec")
		}
		for _, o := range want {
			if !slices.Contains(options[m.target], o) {
				t.Errorf("%s: %v lacks %s", m.target, options[m.target], o)
			}
		}
	}
	for name, target := range deviceLinks() {
		if got, err := os.Readlink(name); err != nil || got != target {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

// TestVMPivot: a container can leave the initramfs by pivot_root.
func TestVMPivot(t *testing.T) {
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with its mount namespace
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
				return err
			}
			if err := unix.Mount("new", dir, "tmpfs", 0, "size=1M"); err != nil {
				return err
			}
			if err := unix.Chdir(dir); err != nil {
				return err
			}
			return unix.PivotRoot(".", ".")
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestVMControlGroups(t *testing.T) {
	dir := filepath.Join(cgroupPath, "vm-test")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(dir)
	for file, value := range map[string]string{"memory.max": "33554432", "pids.max": "7", "cpu.max": "50000 100000"} {
		if err := set(filepath.Join(dir, file), value); err != nil {
			t.Errorf("%s: %v", file, err)
		} else if got := strings.TrimSpace(read(t, filepath.Join(dir, file))); got != value {
			t.Errorf("%s: %q, want %q", file, got, value)
		}
	}
}

func TestVMSealed(t *testing.T) {
	for _, s := range switches() {
		if got := strings.TrimSpace(read(t, s.file)); got != s.value {
			t.Errorf("%s: %q, want %q", s.file, got, s.value)
		}
	}
	if state := read(t, lockdownFile); !locked([]byte(state)) {
		t.Errorf("lockdown: %s", state)
	}
	if err := os.WriteFile("/proc/sys/kernel/modules_disabled", []byte("0"), 0); err == nil {
		t.Error("module loading was switched on again")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if err := unix.FinitModule(int(null.Fd()), "", 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("loading a module: %v", err)
	}
	for line := range strings.Lines(read(t, "/proc/1/limits")) {
		if strings.HasPrefix(line, "Max core file size") && !slices.Equal(strings.Fields(line)[4:6], []string{"0", "0"}) {
			t.Error(line)
		}
	}
	if info, err := os.Stat("/proc/1/mem"); err != nil {
		t.Error(err)
	} else if info.Mode().Perm() != 0o600 {
		t.Errorf("/proc/1/mem has mode %v", info.Mode())
	}
}

func TestVMNetwork(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if name, err := os.Hostname(); err != nil || name != defaultHostname {
		t.Errorf("host name %q, %v", name, err)
	}
}

// TestMeasuredRoot runs in a guest that has left its initial RAM file system: its
// root is the checked device, nothing can be written to it, and the initial RAM file
// system's program is gone.
func TestMeasuredRoot(t *testing.T) {
	var root []string
	for line := range strings.Lines(read(t, "/proc/1/mounts")) {
		if f := strings.Fields(line); f[1] == "/" {
			root = f
		}
	}
	if len(root) < 4 || root[0] != "/dev/mapper/root" || root[2] != "erofs" || !slices.Contains(strings.Split(root[3], ","), "ro") {
		t.Errorf("the root is %q", root)
	}
	if program, err := os.Readlink("/proc/1/exe"); err != nil || program != "/usr/bin/kata-agent" {
		t.Errorf("the first process runs %s, %v", program, err)
	}
	for _, name := range []string{"/x", "/etc/x", "/usr/bin/kata-agent"} {
		if err := os.WriteFile(name, nil, 0o600); !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ETXTBSY) {
			t.Errorf("writing %s: %v", name, err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT, ""); err == nil {
		t.Error("the root was mounted again for writing")
	}
	if _, err := os.Lstat(RootPin); err == nil {
		t.Error("the initial RAM file system is still there")
	}
}
