// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"path"
	"slices"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	// Shared is where copied files land.
	Shared = "/run/kata-containers/shared/containers/"
	// Scratch is the pod's memory-backed volume.
	Scratch = "/run/kata-containers/sandbox/ephemeral/scratch"

	// OneFile is where the container app has one file of its settings, by a subPath.
	OneFile = "/srv/app.conf"

	serviceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// Copied is the path of a file that was copied for a container.
func (s Stack) Copied(id, destination string) string {
	return Shared + id + "-" + s.nonce(id+destination) + "-" + path.Base(destination)
}

func (s Stack) bind(id, destination string, options ...string) *kata.Mount {
	return &kata.Mount{Destination: destination, Type: "bind", Source: s.Copied(id, destination), Options: options}
}

// kernelMounts are those that every container has.
func (s Stack) kernelMounts() []*kata.Mount {
	mounts := []*kata.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	shm := &kata.Mount{Destination: "/dev/shm", Type: "bind", Source: "/run/kata-containers/sandbox/shm", Options: []string{"rbind"}}
	return append(mounts, shm)
}

func (s Stack) mounts(id string, c *container) []*kata.Mount {
	list := append(s.kernelMounts(), &kata.Mount{
		Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"},
	})
	if s.Engine == CRIO {
		list = append(list,
			s.bind(id, "/etc/resolv.conf", "rw", "rbind", "rprivate", "nodev", "nosuid", "noexec"),
			s.bind(id, "/etc/hostname", "rw", "rbind", "rprivate"))
	} else {
		list = append(list, s.bind(id, "/etc/hostname", "rbind", "rprivate", "rw"), s.bind(id, "/etc/resolv.conf", "rbind", "rprivate", "rw"))
	}
	list = append(list,
		s.bind(id, "/etc/hosts", "rbind", "rprivate", "rw"),
		s.bind(id, "/dev/termination-log", "rbind", "rprivate", "rw"),
		s.bind(id, serviceAccount, "rbind", "rprivate", "ro"))
	if c.scratch {
		list = append(list, &kata.Mount{Destination: "/data", Type: "bind", Source: Scratch, Options: []string{"rbind", "rprivate", "rw"}})
	}
	if c.settings {
		list = append(list, s.bind(id, "/etc/app", "rbind", "rprivate", "ro"), s.bind(id, OneFile, "rbind", "rprivate", "ro"))
	}
	return list
}

func (s Stack) pauseMounts() []*kata.Mount {
	return append(s.kernelMounts(), s.bind(s.SandboxID(), "/etc/resolv.conf", "rbind", "ro", "nosuid", "nodev", "noexec"))
}

// linux is the OCI spec's platform part.
func (s Stack) linux(id string) *kata.Linux {
	l := &kata.Linux{
		CgroupsPath: s.cgroups(id),
		Resources: &kata.LinuxResources{
			Memory: &kata.LinuxMemory{Limit: 256 << 20, Swap: 256 << 20},
			CPU:    &kata.LinuxCPU{Shares: 256, Quota: 50000, Period: 100000},
		},
		MaskedPaths: []string{
			"/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
			"/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
		},
		ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
	}
	kinds := []string{"pid", "ipc", "uts", "mount"}
	if s.Runtime == RustRuntime {
		kinds = []string{"ipc", "uts", "mount"}
		if s.Engine != Containerd1 {
			kinds = append(kinds, "cgroup")
		}
		l.Resources.Devices = deviceRules()
		l.Resources.Pids = &kata.LinuxPids{Limit: 1024}
		l.Resources.CPU.Cpus = "0"
	}
	for _, kind := range kinds {
		l.Namespaces = append(l.Namespaces, &kata.LinuxNamespace{Type: kind})
	}
	if s.Engine == Containerd2 {
		l.Resources.HugepageLimits = []*kata.LinuxHugepageLimit{{Pagesize: "2MB"}}
	}
	if s.Engine == CRIO {
		l.RootfsPropagation = "rprivate"
		l.Seccomp = &kata.LinuxSeccomp{
			DefaultAction: "SCMP_ACT_ERRNO", Architectures: []string{"SCMP_ARCH_X86_64"},
			Syscalls: []*kata.LinuxSyscall{{Names: slices.Clone(ordinaryCalls), Action: "SCMP_ACT_ALLOW"}},
		}
	}
	return l
}

// deviceRules are an engine's own: nothing, then the devices that every container has. A number that a rule leaves
// open is 0 on the wire.
func deviceRules() []*kata.LinuxDeviceCgroup {
	rules := []*kata.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Access: "m"}, {Allow: true, Type: "b", Access: "m"}}
	for _, n := range [][2]int64{{1, 3}, {1, 8}, {1, 7}, {5, 0}, {1, 5}, {1, 9}, {5, 1}, {136, 0}, {5, 2}} {
		rules = append(rules, &kata.LinuxDeviceCgroup{Allow: true, Type: "c", Major: n[0], Minor: n[1], Access: "rwm"})
	}
	return rules
}

// ordinaryCalls stand for the several hundred of an engine's default profile.
var ordinaryCalls = []string{
	"access", "arch_prctl", "brk", "capget", "capset", "chdir", "clone", "clone3", "close", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl",
	"epoll_pwait", "execve", "exit", "exit_group", "faccessat", "faccessat2", "fchdir", "fchmod", "fchown", "fcntl", "fork", "fstat", "fstatfs",
	"futex", "getcwd", "getdents64", "getegid", "geteuid", "getgid", "getpgrp", "getpid", "getppid", "getrandom", "getrlimit", "gettid", "getuid",
	"ioctl", "kill", "lseek", "madvise", "mkdir", "mmap", "mprotect", "munmap", "nanosleep", "newfstatat", "open", "openat", "openat2", "pipe",
	"pipe2", "poll", "prctl", "pread64", "prlimit64", "pwrite64", "read", "readlink", "readlinkat", "rename", "restart_syscall", "rseq",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address", "setgid",
	"setgroups", "setpgid", "setsid", "setuid", "sigaltstack", "stat", "statfs", "statx", "symlink", "tgkill", "time", "umask", "uname", "unlink",
	"vfork", "wait4", "write", "writev",
}

func (s Stack) hooks() *kata.Hooks {
	if s.Runtime == RustRuntime && s.Engine == CRIO {
		return &kata.Hooks{}
	}
	return nil
}
