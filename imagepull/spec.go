// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"fmt"
	"path"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const defaultPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// newSpec writes the runtime spec for an image that is mounted at rootfs (OCI
// image-spec, conversion.md). Nothing of the guest is mounted into it.
func newSpec(c ocispec.ImageConfig, rootfs string, opts BundleOptions) (*specs.Spec, error) {
	process, err := newProcess(c, rootfs, opts)
	if err != nil {
		return nil, err
	}
	return &specs.Spec{
		Version:  specs.Version,
		Process:  process,
		Root:     &specs.Root{Path: rootfs, Readonly: opts.Readonly},
		Hostname: opts.Hostname,
		Mounts:   defaultMounts(),
		Linux: &specs.Linux{
			Namespaces:    namespaces(opts.PrivateNetwork),
			MaskedPaths:   maskedPaths(),
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			// Everything is denied; the runtime adds null, zero, full, random,
			// urandom, tty, console, ptmx and the pseudo terminals.
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
		},
	}, nil
}

func newProcess(c ocispec.ImageConfig, rootfs string, opts BundleOptions) (*specs.Process, error) {
	entrypoint, args := c.Entrypoint, c.Cmd
	if opts.Entrypoint != nil {
		entrypoint, args = opts.Entrypoint, nil
	}
	if opts.Args != nil {
		args = opts.Args
	}
	argv := slices.Concat(entrypoint, args)
	if len(argv) == 0 || argv[0] == "" {
		return nil, fmt.Errorf("%w: the image names no command and none was given", ErrUnsupported)
	}
	env, err := mergeEnv(c.Env, opts.Env)
	if err != nil {
		return nil, err
	}
	cwd, user := c.WorkingDir, c.User
	if opts.WorkingDir != "" {
		cwd = opts.WorkingDir
	}
	if opts.User != "" {
		user = opts.User
	}
	for _, s := range slices.Concat(argv, env, []string{cwd}) {
		if strings.ContainsRune(s, 0) {
			return nil, fmt.Errorf("%w: a NUL byte in argv, environment or working directory", ErrUnsupported)
		}
	}
	id, err := ResolveUser(rootfs, user)
	if err != nil {
		return nil, err
	}
	return &specs.Process{
		Terminal:     opts.Terminal,
		User:         id,
		Args:         argv,
		Env:          env,
		Cwd:          path.Clean("/" + cwd),
		Capabilities: defaultCapabilities(),
	}, nil
}

// mergeEnv lets later entries win and keeps one of each name, so that no two
// programs can read two different values.
func mergeEnv(lists ...[]string) ([]string, error) {
	merged := []string{defaultPath}
	index := map[string]int{"PATH": 0}
	for _, entry := range slices.Concat(lists...) {
		name, _, ok := strings.Cut(entry, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%w: an environment entry is not NAME=VALUE", ErrUnsupported)
		}
		if i, seen := index[name]; seen {
			merged[i] = entry
			continue
		}
		index[name] = len(merged)
		merged = append(merged, entry)
	}
	return merged, nil
}

// defaultCapabilities are the 14 that container engines grant. None is
// inheritable or ambient: a process that is not root gets none of them.
func defaultCapabilities() *specs.LinuxCapabilities {
	set := []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
	return &specs.LinuxCapabilities{Bounding: set, Permitted: slices.Clone(set), Effective: slices.Clone(set)}
}

func defaultMounts() []specs.Mount {
	return []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
}

// maskedPaths hides what tells a container about the guest. The configfs of
// attestation reports and securityfs are not mounted in a new sysfs; masking
// their places keeps it so.
func maskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware", "/sys/kernel/config", "/sys/kernel/security",
	}
}

// namespaces leaves out the network's unless it is to be private, and the
// cgroup's where the guest still has version 1 hierarchies.
func namespaces(privateNetwork bool) []specs.LinuxNamespace {
	kinds := []specs.LinuxNamespaceType{specs.PIDNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace}
	if privateNetwork {
		kinds = append(kinds, specs.NetworkNamespace)
	}
	var s unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &s); err == nil && s.Type == unix.CGROUP2_SUPER_MAGIC {
		kinds = append(kinds, specs.CgroupNamespace)
	}
	list := make([]specs.LinuxNamespace, 0, len(kinds))
	for _, k := range kinds {
		list = append(list, specs.LinuxNamespace{Type: k})
	}
	return list
}
