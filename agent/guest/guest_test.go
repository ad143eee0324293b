// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMountTable pins what makes the mounts safe: nothing honours set-user-id files, device nodes work in /dev only,
// and programs run from /run only.
func TestMountTable(t *testing.T) {
	seen := make(map[string]bool)
	for _, m := range append(earlyMounts(), lateMounts()...) {
		if m.flags&unix.MS_NOSUID == 0 {
			t.Errorf("%s honours set-user-id files", m.target)
		}
		if (m.flags&unix.MS_NODEV == 0) != (m.target == "/dev" || m.target == "/dev/pts") {
			t.Errorf("%s: nodev is %v", m.target, m.flags&unix.MS_NODEV != 0)
		}
		if (m.flags&unix.MS_NOEXEC == 0) != (m.target == "/run") {
			t.Errorf("%s: noexec is %v", m.target, m.flags&unix.MS_NOEXEC != 0)
		}
		if m.fstype == "tmpfs" && !strings.Contains(m.data, "size=") {
			t.Errorf("%s may fill the memory", m.target)
		}
		if parent := filepath.Dir(m.target); parent != "/" && !seen[parent] && !strings.HasPrefix(m.target, "/sys/") {
			t.Errorf("%s comes before %s", m.target, parent)
		}
		seen[m.target] = true
	}
	for _, want := range []string{"/proc", "/sys", "/dev", "/dev/pts", "/run", "/tmp", "/sys/fs/cgroup", "/sys/kernel/config", "/sys/kernel/security"} {
		if !seen[want] {
			t.Errorf("%s is not mounted", want)
		}
	}
	if first := earlyMounts()[0]; first.target != procPath || first.optional {
		t.Errorf("the first mount is %s", first.target)
	}
}

func TestMountAll(t *testing.T) {
	dir := t.TempDir()
	missing := mount{source: "x", target: filepath.Join(dir, "x"), fstype: "no-such-fs", optional: true}
	if absent, err := mountAll([]mount{missing}); err != nil || !slices.Equal(absent, []string{missing.target}) {
		t.Errorf("an optional file system: %v, %v", absent, err)
	}
	missing.optional = false
	if _, err := mountAll([]mount{missing}); err == nil || !strings.Contains(err.Error(), missing.target) {
		t.Errorf("a required file system: %v", err)
	}
}

func TestParseModuleList(t *testing.T) {
	list, err := parseModuleList("# kernel 6.12\n\n/lib/modules/6.12/a.ko\n?/lib/modules/6.12/b-c.ko.xz\n")
	want := []module{{"/lib/modules/6.12/a.ko", false}, {"/lib/modules/6.12/b-c.ko.xz", true}}
	if err != nil || !slices.Equal(list, want) {
		t.Errorf("got %v, %v", list, err)
	}
	for _, bad := range []string{
		"a.ko", "/lib/modules/../../tmp/a.ko", "/lib/modules/a", "/lib/modules/a.so", "/tmp/a.ko", "/lib/modules/",
		" /lib/modules/a.ko", "/lib/modules/a.ko ", "/lib/modules/a.ko\r", "??/lib/modules/a.ko", "/lib/modules//a.ko",
	} {
		if list, err := parseModuleList(bad); err == nil {
			t.Errorf("%q: got %v", bad, list)
		}
	}
}

// TestLoadModules answers finit_module in the kernel's place.
func TestLoadModules(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	plain, packed := file("dm-mod.ko"), file("sev-guest.ko.xz")
	answer := map[int]error{0: nil, unix.MODULE_INIT_COMPRESSED_FILE: unix.ENODEV}
	var flags []int
	finit := func(_ int, params string, f int) error {
		if params != "" {
			t.Errorf("parameters %q", params)
		}
		flags = append(flags, f)
		return answer[f]
	}
	loaded, absent, err := loadModules([]module{{plain, false}, {packed, true}}, finit)
	if err != nil || loaded != 1 || !slices.Equal(absent, []string{"sev_guest"}) || !slices.Equal(flags, []int{0, unix.MODULE_INIT_COMPRESSED_FILE}) {
		t.Errorf("loaded %d, absent %v, flags %v, %v", loaded, absent, flags, err)
	}
	if _, _, err := loadModules([]module{{packed, false}}, finit); !errors.Is(err, unix.ENODEV) || !strings.Contains(err.Error(), "sev_guest") {
		t.Errorf("a required module without a device: %v", err)
	}
	answer[0] = unix.EEXIST
	if loaded, _, err := loadModules([]module{{plain, false}}, finit); err != nil || loaded != 1 {
		t.Errorf("a module that is there already: %d, %v", loaded, err)
	}
	answer[0] = unix.EKEYREJECTED
	if _, _, err := loadModules([]module{{plain, true}}, finit); !errors.Is(err, unix.EKEYREJECTED) {
		t.Errorf("an optional module with a bad signature: %v", err)
	}
	if _, _, err := loadModules([]module{{filepath.Join(dir, "x.ko"), true}}, finit); err == nil {
		t.Error("a missing file was taken for a missing device")
	}
}

func TestReadModuleList(t *testing.T) {
	if list, err := readModuleList(filepath.Join(t.TempDir(), "none")); list != nil || err != nil {
		t.Errorf("an image without a list: %v, %v", list, err)
	}
}

func TestDelegateControllers(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("cgroup.subtree_control", "")
	if _, err := delegateControllers(dir); err == nil {
		t.Error("a directory without controllers was accepted")
	}
	write("cgroup.controllers", "cpuset cpu io memory pids\n")
	got, err := delegateControllers(dir)
	if err != nil || !slices.Equal(got, []string{"cpuset", "cpu", "io", "memory", "pids"}) {
		t.Errorf("got %v, %v", got, err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control")); string(b) != "+cpuset +cpu +io +memory +pids" {
		t.Errorf("wrote %q", b)
	}
	write("cgroup.controllers", "cpu pids\n")
	if _, err := delegateControllers(dir); err == nil || !strings.Contains(err.Error(), "memory") {
		t.Errorf("memory switched off by the host: %v", err)
	}
}

func TestCheckHostname(t *testing.T) {
	for name, ok := range map[string]bool{
		"casemate": true, "a": true, "A-1": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "a.b": false, "a b": false, "a\n": false, "é": false, strings.Repeat("a", 64): false,
	} {
		if err := checkHostname(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestConsole(t *testing.T) {
	var b bytes.Buffer
	c := NewConsole(&b)
	c.Print("ready", "one\ntwo\x1b[2J")
	if got := b.String(); got != "casemate: ready: one?two?[2J\n" {
		t.Errorf("got %q", got)
	}
	b.Reset()
	c.Print("long", strings.Repeat("x", 10_000))
	if got := b.String(); len(got) != lineMax || !strings.HasSuffix(got, "x\n") {
		t.Errorf("a long line has %d bytes", len(got))
	}
	b.Reset()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.Park(ctx, "boot-modules", "the guest could not be set up")
	if got := b.String(); got != "casemate: parked: boot-modules: the guest could not be set up\n" {
		t.Errorf("got %q", got)
	}
}

func TestStepError(t *testing.T) {
	err := error(&StepError{"modules", unix.ENOENT})
	var step *StepError
	if !errors.As(err, &step) || step.Code() != "boot-modules" || !errors.Is(err, unix.ENOENT) {
		t.Errorf("got %v", err)
	}
}

func TestFlip(t *testing.T) {
	file := filepath.Join(t.TempDir(), "switch")
	if err := flip(file, "1"); err != nil {
		t.Errorf("a switch that the kernel lacks: %v", err)
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a missing switch was made")
	}
	if err := os.WriteFile(file, []byte("0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := flip(file, "1"); err != nil {
		t.Error(err)
	}
	// /dev/null takes the write and reads back empty, as a switch without effect does.
	if err := flip(os.DevNull, "1"); err == nil {
		t.Error("a switch without effect passed")
	}
}

func TestSwitchesAreNamed(t *testing.T) {
	want := map[string]string{
		"/proc/sys/kernel/modules_disabled":    "1",
		"/proc/sys/kernel/kexec_load_disabled": "1",
		"/proc/sys/fs/suid_dumpable":           "0",
	}
	for _, s := range switches() {
		delete(want, s.file)
	}
	if len(want) > 0 {
		t.Errorf("not switched: %v", want)
	}
}

func TestLocked(t *testing.T) {
	for state, want := range map[string]bool{
		"none integrity [confidentiality]\n": true,
		"[none] integrity confidentiality\n": false,
		"none [integrity] confidentiality\n": false,
		"":                                   false,
	} {
		if locked([]byte(state)) != want {
			t.Errorf("%q", state)
		}
	}
}

// TestCleanStartElsewhere: an ordinary process keeps its arguments and environment.
func TestCleanStartElsewhere(t *testing.T) {
	if First() {
		t.Skip("this test is the first process of its namespace")
	}
	if err := CleanStart(); err != nil {
		t.Error(err)
	}
}
