// SPDX-License-Identifier: Apache-2.0

package container

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runc/libcontainer/specconv"
	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestCheckID(t *testing.T) {
	for _, id := range []string{"ab", "A0", "0f_x.y-z", "a..b", strings.Repeat("a", 128)} {
		if err := CheckID(id); err != nil {
			t.Errorf("%q is refused: %v", id, err)
		}
	}
	for _, id := range []string{
		"", "a", ".", "..", "../x", "a/b", "/ab", "-a", "_a", ".a", "a b", "a\n", "ab\n", "a\x00b", "ä1", "a+b",
		strings.Repeat("a", 129), strings.Repeat("a", 1<<20), "a\u202eb",
	} {
		err := CheckID(id)
		if !errors.Is(err, ErrRefused) {
			t.Errorf("%.40q gives %v, want a refusal", id, err)
		} else if len(err.Error()) > 1200 {
			t.Errorf("%.40q gives an error of %d bytes", id, len(err.Error()))
		}
	}
}

// testBundle makes a bundle directory with an empty rootfs and a good spec.
func testBundle(t testing.TB) (string, *specs.Spec) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := specconv.Example()
	spec.Process.Terminal = false
	return dir, spec
}

func add[T any](list *[]T, v T) { *list = append(*list, v) }

func TestHardenRefuses(t *testing.T) {
	one := int64(1)
	policy := Policy{MountSources: []string{"ALLOWED"}}
	for name, change := range map[string]func(s *specs.Spec, dir string){
		"no process":         func(s *specs.Spec, _ string) { s.Process = nil },
		"no root":            func(s *specs.Spec, _ string) { s.Root = nil },
		"no arguments":       func(s *specs.Spec, _ string) { s.Process.Args = nil },
		"NUL in argument":    func(s *specs.Spec, _ string) { s.Process.Args = []string{"sh\x00"} },
		"relative cwd":       func(s *specs.Spec, _ string) { s.Process.Cwd = "x" },
		"no cwd":             func(s *specs.Spec, _ string) { s.Process.Cwd = "" },
		"CVE-2024-21626 cwd": func(s *specs.Spec, _ string) { s.Process.Cwd = "/proc/self/fd/7" },
		"CVE-2024-21626 dot": func(s *specs.Spec, _ string) { s.Process.Cwd = "/x/../proc/./self/fd/7/../../.." },
		"oom score":          func(s *specs.Spec, _ string) { n := -1000; s.Process.OOMScoreAdj = &n },
		"unknown rlimit":     func(s *specs.Spec, _ string) { s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"double rlimit": func(s *specs.Spec, _ string) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CORE"}, {Type: "RLIMIT_CORE"}}
		},
		"real-time scheduler": func(s *specs.Spec, _ string) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO} },

		"root is the bundle":      func(s *specs.Spec, _ string) { s.Root.Path = "." },
		"root above":              func(s *specs.Spec, _ string) { s.Root.Path = ".." },
		"root above and back":     func(s *specs.Spec, dir string) { s.Root.Path = "../../" + filepath.Base(filepath.Dir(dir)) },
		"root elsewhere":          func(s *specs.Spec, _ string) { s.Root.Path = "/" },
		"root by name prefix":     func(s *specs.Spec, dir string) { s.Root.Path = dir + "x" },
		"root missing":            func(s *specs.Spec, _ string) { s.Root.Path = "none" },
		"root is a link":          func(s *specs.Spec, dir string) { os.Symlink("/", filepath.Join(dir, "ln")); s.Root.Path = "ln" },
		"root is a link inside":   func(s *specs.Spec, dir string) { os.Symlink("rootfs", filepath.Join(dir, "ln")); s.Root.Path = "ln" },
		"root is a file":          func(s *specs.Spec, dir string) { os.WriteFile(filepath.Join(dir, "f"), nil, 0o600); s.Root.Path = "f" },
		"root in a linked folder": func(s *specs.Spec, dir string) { os.Symlink("..", filepath.Join(dir, "up")); s.Root.Path = "up/x" },

		"hook prestart":         func(s *specs.Spec, _ string) { s.Hooks = &specs.Hooks{Prestart: []specs.Hook{{Path: "/x"}}} }, //nolint:staticcheck
		"hook createRuntime":    func(s *specs.Spec, _ string) { s.Hooks = &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/x"}}} },
		"hook createContainer":  func(s *specs.Spec, _ string) { s.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{{Path: "/x"}}} },
		"hook startContainer":   func(s *specs.Spec, _ string) { s.Hooks = &specs.Hooks{StartContainer: []specs.Hook{{Path: "/x"}}} },
		"hook poststart":        func(s *specs.Spec, _ string) { s.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/x"}}} },
		"hook poststop":         func(s *specs.Spec, _ string) { s.Hooks = &specs.Hooks{Poststop: []specs.Hook{{Path: "/x"}}} },
		"guest's pid namespace": func(s *specs.Spec, _ string) { dropNamespace(s, specs.PIDNamespace) },
		"guest's ipc namespace": func(s *specs.Spec, _ string) { dropNamespace(s, specs.IPCNamespace) },
		"guest's uts namespace": func(s *specs.Spec, _ string) { dropNamespace(s, specs.UTSNamespace) },
		"guest's mounts":        func(s *specs.Spec, _ string) { dropNamespace(s, specs.MountNamespace) },
		"no linux section":      func(s *specs.Spec, _ string) { s.Linux = nil },
		"joining PID 1's pid namespace": func(s *specs.Spec, _ string) {
			dropNamespace(s, specs.PIDNamespace)
			add(&s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/proc/1/ns/pid"})
		},
		"joining a network": func(s *specs.Spec, _ string) {
			dropNamespace(s, specs.NetworkNamespace)
			add(&s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: "/proc/1/ns/net"})
		},

		"disk": func(s *specs.Spec, _ string) {
			add(&s.Linux.Devices, specs.LinuxDevice{Path: "/dev/vda", Type: "b", Major: 254, Minor: 0})
		},
		"device under a default name": func(s *specs.Spec, _ string) {
			add(&s.Linux.Devices, specs.LinuxDevice{Path: "/dev/null", Type: "c", Major: 1, Minor: 1})
		},
		"default device under another name": func(s *specs.Spec, _ string) {
			add(&s.Linux.Devices, specs.LinuxDevice{Path: "/dev/sev-guest", Type: "c", Major: 1, Minor: 3})
		},
		"device rule for everything": func(s *specs.Spec, _ string) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		},
		"device rule for memory": func(s *specs.Spec, _ string) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &one, Minor: &one, Access: "r"}}
		},
		"device rule for a whole major": func(s *specs.Spec, _ string) {
			s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &one, Access: "rw"}}
		},

		"bind of the guest's root": bind("/"),
		"bind of /proc":            bind("/proc"),
		"relative bind":            bind("ALLOWED/x"),
		"bind by name prefix":      func(s *specs.Spec, dir string) { bind(dir+"/allowedx")(s, dir) },
		"bind through dots":        func(s *specs.Spec, dir string) { bind(dir+"/allowed/../rootfs")(s, dir) },
		"bind through a link (CVE-2026-41326)": func(s *specs.Spec, dir string) {
			os.Symlink("/", filepath.Join(dir, "allowed", "root"))
			bind(dir+"/allowed/root/etc")(s, dir)
		},
		"bind of a link": func(s *specs.Spec, dir string) {
			os.Symlink("/etc/passwd", filepath.Join(dir, "allowed", "file"))
			bind(dir+"/allowed/file")(s, dir)
		},
		"bind hidden behind a type": func(s *specs.Spec, _ string) {
			add(&s.Mounts, specs.Mount{Destination: "/proc", Type: "proc", Source: "/etc", Options: []string{"rbind"}})
		},
		"bind of an allowed source over /proc as proc": func(s *specs.Spec, dir string) {
			mount(specs.Mount{Destination: "/proc", Type: "proc", Source: dir + "/allowed", Options: []string{"rbind"}})(s, dir)
		},
		"bind of an allowed source below /proc as proc": func(s *specs.Spec, dir string) {
			mount(specs.Mount{Destination: "/proc/sys", Type: "proc", Source: dir + "/allowed", Options: []string{"bind", "ro"}})(s, dir)
		},
		"mount of a disk": mount(specs.Mount{Destination: "/x", Type: "ext4", Source: "/dev/vda"}),
		"overlay":         mount(specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir=/"}}),
		"9p":              mount(specs.Mount{Destination: "/x", Type: "9p", Source: "share"}),
		"configfs":        mount(specs.Mount{Destination: "/x", Type: "configfs"}),
		"securityfs":      mount(specs.Mount{Destination: "/x", Type: "securityfs"}),
		"no type":         mount(specs.Mount{Destination: "/x"}),
		"bind as a type":  mount(specs.Mount{Destination: "/x", Type: "bind", Source: "/"}),
		"bind over /proc (CVE-2019-16884)": func(s *specs.Spec, dir string) {
			mount(specs.Mount{Destination: "/proc", Type: "bind", Source: dir + "/allowed", Options: []string{"bind"}})(s, dir)
		},
		"tmpfs in /proc":  mount(specs.Mount{Destination: "/proc/sys", Type: "tmpfs"}),
		"second proc":     mount(specs.Mount{Destination: "/proc2", Type: "proc", Source: "proc"}),
		"second sysfs":    mount(specs.Mount{Destination: "/sys2", Type: "sysfs", Options: []string{"ro"}}),
		"writable sysfs":  mount(specs.Mount{Destination: "/sys", Type: "sysfs", Options: []string{"ro", "rw"}}),
		"writable cgroup": mount(specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup"}),
		"mount over root": mount(specs.Mount{Destination: "/", Type: "tmpfs"}),
		"mount at dots":   mount(specs.Mount{Destination: "/a/../../x", Type: "tmpfs"}),
		"relative mount":  mount(specs.Mount{Destination: "x", Type: "tmpfs"}),
		"NUL in mount":    mount(specs.Mount{Destination: "/x\x00", Type: "tmpfs"}),
		"remount":         mount(specs.Mount{Destination: "/sys", Type: "tmpfs", Options: []string{"remount", "rw"}}),
		"kata#13615": func(s *specs.Spec, _ string) {
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "proc" })
		},
		"shared mount": mount(specs.Mount{Destination: "/x", Type: "tmpfs", Options: []string{"rshared"}}),
		"shared root":  func(s *specs.Spec, _ string) { s.Linux.RootfsPropagation = "rshared" },

		"network device": func(s *specs.Spec, _ string) {
			s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth0": {}}
		},
		"resctrl":          func(s *specs.Spec, _ string) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{} },
		"seccomp listener": func(s *specs.Spec, _ string) { s.Linux.Seccomp = &specs.LinuxSeccomp{ListenerPath: "/run/x"} },
		"seccomp notify": func(s *specs.Spec, _ string) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"open"}, Action: specs.ActNotify}}}
		},
		"cgroup file that moves processes": unified("cgroup.procs"),
		"cgroup file elsewhere":            unified("memory.max/../../x"),
		"cgroup file without controller":   unified("x"),
	} {
		t.Run(name, func(t *testing.T) {
			dir, spec := testBundle(t)
			for _, d := range []string{"allowed", "allowedx"} {
				if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			policy := policy
			policy.MountSources = []string{filepath.Join(dir, "allowed")}
			change(spec, dir)
			got, err := harden(spec, dir, "/g/ab", policy)
			if err == nil {
				t.Fatalf("accepted: %+v", got)
			}
			if name != "root missing" && name != "root is a file" && !errors.Is(err, ErrRefused) {
				t.Errorf("error %v does not wrap ErrRefused", err)
			}
		})
	}
}

func dropNamespace(s *specs.Spec, t specs.LinuxNamespaceType) {
	s.Linux.Namespaces = slices.DeleteFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

func bind(source string) func(*specs.Spec, string) {
	return mount(specs.Mount{Destination: "/x", Type: "bind", Source: source, Options: []string{"bind"}})
}

func mount(m specs.Mount) func(*specs.Spec, string) {
	return func(s *specs.Spec, _ string) { add(&s.Mounts, m) }
}

func unified(name string) func(*specs.Spec, string) {
	return func(s *specs.Spec, _ string) { s.Linux.Resources.Unified = map[string]string{name: "1"} }
}

func TestHardenAccepts(t *testing.T) {
	dir, spec := testBundle(t)
	for _, d := range []string{"volumes/a/b", "other"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	disk := specs.LinuxDevice{Path: "/dev/vdb", Type: "b", Major: 254, Minor: 16}
	tty := specs.LinuxDevice{Path: "/dev/tty", Type: "c", Major: 5, Minor: 0}
	major, minor := int64(254), int64(16)
	spec.Linux.Devices = []specs.LinuxDevice{disk, tty}
	spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		{Allow: true, Type: "b", Major: &major, Minor: &minor, Access: "rw"},
		{Allow: true, Type: "c", Access: "m"}, // what containerd's default spec has
	}
	spec.Linux.MaskedPaths = []string{"/proc/kcore", "/tenant"}
	spec.Linux.ReadonlyPaths = nil
	spec.Linux.CgroupsPath = "/../../evil"
	spec.Annotations = map[string]string{"a": "b"}
	spec.Hooks = &specs.Hooks{}
	spec.Root.Path = filepath.Join(dir, "rootfs")
	spec.Process.Capabilities = nil
	spec.Process.OOMScoreAdj = nil
	dropNamespace(spec, specs.PIDNamespace)
	joined := specs.LinuxNamespace{Type: specs.PIDNamespace, Path: "/run/ns/pid"}
	add(&spec.Linux.Namespaces, joined)
	dropNamespace(spec, specs.IPCNamespace)
	mount(specs.Mount{Destination: "/data/", Type: "bind", Source: dir + "/volumes/a/b", Options: []string{"rbind", "ro"}})(spec, dir)
	mount(specs.Mount{Destination: "/all", Type: "none", Source: dir + "/volumes", Options: []string{"bind"}})(spec, dir)

	before, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	got, err := harden(spec, dir, "/casemate/ab", Policy{
		MountSources:    []string{dir + "/other", dir + "/volumes"},
		Devices:         []specs.LinuxDevice{disk},
		ShareNamespaces: []specs.LinuxNamespaceType{specs.IPCNamespace},
		JoinNamespaces:  []specs.LinuxNamespace{joined},
	})
	if err != nil {
		t.Fatal(err)
	}
	if after, _ := json.Marshal(spec); string(after) != string(before) {
		t.Error("the caller's spec was changed")
	}
	if got.Root.Path != filepath.Join(dir, "rootfs") || got.Linux.CgroupsPath != "/casemate/ab" || got.Annotations != nil {
		t.Errorf("root %q, cgroup %q, annotations %v", got.Root.Path, got.Linux.CgroupsPath, got.Annotations)
	}
	for _, path := range append([]string{"/tenant"}, maskedPaths...) {
		if !slices.Contains(got.Linux.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}
	if !reflect.DeepEqual(got.Linux.ReadonlyPaths, readonlyPaths) {
		t.Errorf("read-only paths %v", got.Linux.ReadonlyPaths)
	}
	if got.Process.Capabilities == nil || *got.Process.OOMScoreAdj != 0 {
		t.Error("capabilities or OOM score would be inherited from the agent")
	}
	if n := len(got.Linux.Resources.Devices); n != 3 || got.Linux.Resources.Devices[0].Allow {
		t.Errorf("device rules %+v", got.Linux.Resources.Devices)
	}
}

func TestHardenUnmasked(t *testing.T) {
	dir, spec := testBundle(t)
	spec.Linux.MaskedPaths, spec.Linux.ReadonlyPaths = nil, nil
	for i := range spec.Mounts {
		spec.Mounts[i].Options = slices.DeleteFunc(slices.Clone(spec.Mounts[i].Options), func(o string) bool { return o == "ro" })
	}
	if _, err := harden(spec, dir, "/g/ab", Policy{}); !errors.Is(err, ErrRefused) {
		t.Errorf("writable sysfs: %v", err)
	}
	got, err := harden(spec, dir, "/g/ab", Policy{Unmasked: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Linux.MaskedPaths)+len(got.Linux.ReadonlyPaths) != 0 {
		t.Errorf("masks were added: %v %v", got.Linux.MaskedPaths, got.Linux.ReadonlyPaths)
	}
}

func TestOnInitramfs(t *testing.T) {
	for _, tt := range []struct {
		name, mountinfo string
		want            bool
	}{
		{"disk", "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n24 22 0:5 / /dev rw - devtmpfs dev rw\n", false},
		{"initramfs", "1 1 0:2 / / rw - rootfs rootfs rw\n", true},
		{"initramfs that PID 1 has bound", "24 1 0:2 / / rw - rootfs rootfs rw\n", false},
		{"switched root", "1 1 0:2 / / rw - rootfs rootfs rw\n25 1 253:0 / / ro - erofs /dev/dm-0 ro\n", false},
		{"rootfs elsewhere", "22 1 254:0 / / rw - ext4 /dev/vda rw\n25 1 0:2 / /old rw - rootfs rootfs rw\n", false},
		{"garbage", "x\n\n1 1 / /", false},
	} {
		got, err := onInitramfs(strings.NewReader(tt.mountinfo))
		if err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestExitOf(t *testing.T) {
	for status, want := range map[syscall.WaitStatus]Exit{
		0x0000: {},
		0x0700: {Code: 7},
		0xff00: {Code: 255},
		9:      {Code: 137, Signal: syscall.SIGKILL},
		0x8b:   {Code: 139, Signal: syscall.SIGSEGV}, // with a core
	} {
		got := exitOf(status, want.At)
		if got != want {
			t.Errorf("status %#x: %+v, want %+v", int(status), got, want)
		}
	}
}

// FuzzHarden looks for a spec that gets past the checks without meeting what they
// promise.
func FuzzHarden(f *testing.F) {
	dir, spec := testBundle(f)
	raw, err := json.Marshal(spec)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"process":{"args":["x"],"cwd":"/"},"root":{"path":"rootfs"},"linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"ipc"},{"type":"uts"}]},"mounts":[{"destination":"/a","type":"tmpfs"}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var s specs.Spec
		if json.Unmarshal(raw, &s) != nil {
			return
		}
		got, err := harden(&s, dir, "/g/ab", Policy{})
		if err != nil {
			return
		}
		switch {
		case got.Root.Path != dir+"/rootfs":
			t.Errorf("root %q", got.Root.Path)
		case got.Hooks != nil, got.Annotations != nil, got.Linux.CgroupsPath != "/g/ab":
			t.Error("hooks, annotations or cgroup path survived")
		case got.Process.Capabilities == nil, got.Process.OOMScoreAdj == nil, *got.Process.OOMScoreAdj < minOOMScore:
			t.Error("the process inherits from the agent")
		case len(got.Linux.MaskedPaths) < len(maskedPaths), len(got.Linux.ReadonlyPaths) < len(readonlyPaths):
			t.Error("default paths are not masked")
		}
		for _, m := range got.Mounts {
			if slices.Contains(m.Options, "bind") || slices.Contains(m.Options, "rbind") || !slices.Contains(mountTypes, m.Type) || m.Destination == "/" {
				t.Errorf("mount %+v", m)
			}
		}
		for _, ns := range got.Linux.Namespaces {
			if ns.Path != "" {
				t.Errorf("namespace %+v", ns)
			}
		}
		for _, r := range got.Linux.Resources.Devices {
			if r.Allow && (r.Major == nil || r.Type != "c") {
				t.Errorf("device rule %+v", r)
			}
		}
	})
}
