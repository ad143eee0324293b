// SPDX-License-Identifier: Apache-2.0

package container

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// maskedPaths are hidden from every container: kernel memory, key material, and
// the interfaces through which evidence is made. A path that does not exist is
// passed over.
var maskedPaths = []string{
	"/proc/acpi",
	"/proc/asound",
	"/proc/interrupts",
	"/proc/kcore",
	"/proc/keys",
	"/proc/latency_stats",
	"/proc/sched_debug",
	"/proc/scsi",
	"/proc/timer_list",
	"/proc/timer_stats",
	"/sys/devices/virtual/misc/tdx_guest",
	"/sys/devices/virtual/powercap",
	"/sys/firmware",
	"/sys/kernel/config",
	"/sys/kernel/security",
}

// readonlyPaths can be read by a container's root and not written.
var readonlyPaths = []string{
	"/proc/bus",
	"/proc/fs",
	"/proc/irq",
	"/proc/sys",
	"/proc/sysrq-trigger",
}

// fixedPlaces are the file systems with files that act on the whole kernel. The
// masks above name paths below these places, so nothing else is good enough.
var fixedPlaces = map[string]string{"proc": "/proc", "sysfs": "/sys"}

// mountTypes are the kernel's own file systems that a spec may mount. Everything
// else arrives as a bind mount of what the agent has mounted itself.
var mountTypes = []string{"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2"}

// checkMounts wants, besides, that /proc is the kernel's: while a container is set up its init reads there what is the
// last capability to take away, and of an image's own files in that place it would believe any.
func checkMounts(s *specs.Spec, policy Policy) error {
	s.Mounts = slices.Clone(s.Mounts)
	if !slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool { return m.Type == "proc" && filepath.Clean(m.Destination) == "/proc" }) {
		return refuse("no procfs at /proc")
	}
	for i := range s.Mounts {
		if err := checkMount(&s.Mounts[i], policy); err != nil {
			return fmt.Errorf("checking mount at %q: %w", s.Mounts[i].Destination, err)
		}
	}
	return nil
}

func checkMount(m *specs.Mount, policy Policy) error {
	if strings.ContainsRune(m.Destination+m.Source+m.Type, 0) {
		return refuse("NUL byte in a mount")
	}
	dest := filepath.Clean(m.Destination)
	if !filepath.IsAbs(m.Destination) || dest == "/" || slices.Contains(strings.Split(m.Destination, "/"), "..") {
		return refuse("mount destination is not a clean absolute path below /")
	}
	m.Destination = dest
	bind, readonly := false, false
	for _, o := range m.Options {
		switch o {
		case "bind", "rbind":
			bind = true
		case "ro", "rro":
			readonly = true
		case "rw":
			readonly = false
		case "shared", "rshared", "remount":
			return refuse("mount option %q", o)
		}
	}
	// Mounts over procfs have hidden and faked what init relies on: CVE-2019-16884
	// and its kin. The kernel ignores the type of a bind mount.
	if (bind || m.Type != "proc") && (dest == "/proc" || strings.HasPrefix(dest, "/proc/")) {
		return refuse("mount of type %q over /proc", m.Type)
	}
	if bind {
		return checkBindSource(m.Source, policy)
	}
	if !slices.Contains(mountTypes, m.Type) {
		return refuse("mount type %q", m.Type)
	}
	if place, ok := fixedPlaces[m.Type]; ok && dest != place && !policy.Unmasked {
		return refuse("mount type %q elsewhere than at %s", m.Type, place)
	}
	// Neither needs a capability to be written by a container's root.
	if m.Type != "proc" && (m.Type == "sysfs" || strings.HasPrefix(m.Type, "cgroup")) && !readonly && !policy.Unmasked {
		return refuse("writable mount of type %q", m.Type)
	}
	return nil
}

// checkBindSource wants source to lie beneath one of the policy's directories, by
// its real path and not by its spelling.
func checkBindSource(source string, policy Policy) error {
	if !filepath.IsAbs(source) {
		return refuse("bind source %q is not absolute", source)
	}
	for _, dir := range policy.MountSources {
		rel, err := filepath.Rel(dir, filepath.Clean(source))
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		return existsBeneath(dir, rel, 0)
	}
	return refuse("bind source %q outside the allowed directories", source)
}
