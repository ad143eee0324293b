// SPDX-License-Identifier: Apache-2.0

package container

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// validID is what a container id may look like: it becomes a directory name, a
// cgroup name and a keyring name. The length, up to maxID, leaves room in NAME_MAX.
var validID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]+$`)

const maxID = 128

// minOOMScore keeps every container more killable than the agent, which runs at
// -1000, the value that exempts from the OOM killer.
const minOOMScore = -999

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// CheckID says whether id may name a container.
func CheckID(id string) error {
	if len(id) > maxID || !validID.MatchString(id) {
		return refuse("container id %.140q, want %s of at most %d characters", id, validID, maxID)
	}
	return nil
}

// harden checks spec against policy and returns a copy to build from: root path
// absolute and checked, default masks added, device rules and cgroup path ours.
// The caller's spec is not changed.
func harden(spec *specs.Spec, dir, cgroupPath string, policy Policy) (*specs.Spec, error) {
	if spec == nil || spec.Process == nil || spec.Root == nil {
		return nil, refuse("spec without process or root")
	}
	s := *spec
	s.Linux = &specs.Linux{}
	if spec.Linux != nil {
		*s.Linux = *spec.Linux
	}
	s.Linux.Resources = &specs.LinuxResources{}
	if spec.Linux != nil && spec.Linux.Resources != nil {
		*s.Linux.Resources = *spec.Linux.Resources
	}
	s.Linux.CgroupsPath = cgroupPath
	// Annotations steer nothing here and would only be written to the state file.
	s.Annotations = nil

	for _, check := range []func(*specs.Spec, Policy) error{
		checkHooks, checkProcess, checkNamespaces, checkMounts, checkDevices, checkLinux,
	} {
		if err := check(&s, policy); err != nil {
			return nil, err
		}
	}
	root, err := rootBeneath(dir, spec.Root.Path)
	if err != nil {
		return nil, err
	}
	s.Root = &specs.Root{Path: root, Readonly: spec.Root.Readonly}
	if !policy.Unmasked {
		s.Linux.MaskedPaths = union(maskedPaths, s.Linux.MaskedPaths)
		s.Linux.ReadonlyPaths = union(readonlyPaths, s.Linux.ReadonlyPaths)
	}
	return &s, nil
}

// checkHooks refuses programs that would run outside the container.
func checkHooks(s *specs.Spec, _ Policy) error {
	h := s.Hooks
	if h == nil {
		return nil
	}
	//nolint:staticcheck // Prestart is deprecated but still obeyed by libcontainer.
	n := len(h.Prestart) + len(h.CreateRuntime) + len(h.CreateContainer) + len(h.StartContainer) + len(h.Poststart) + len(h.Poststop)
	if n > 0 {
		return refuse("spec with %d hooks", n)
	}
	s.Hooks = nil
	return nil
}

// checkProcess fills in what would otherwise be inherited from the agent: without
// an OOM score the container would have the agent's own, without a capability
// set all of root's.
func checkProcess(s *specs.Spec, _ Policy) error {
	p := *s.Process
	s.Process = &p
	if len(p.Args) == 0 || p.Args[0] == "" {
		return refuse("process without arguments")
	}
	for _, arg := range p.Args {
		if strings.ContainsRune(arg, 0) {
			return refuse("process argument with a NUL byte")
		}
	}
	if err := checkCwd(p.Cwd); err != nil {
		return err
	}
	if p.OOMScoreAdj == nil {
		p.OOMScoreAdj = new(int)
	} else if *p.OOMScoreAdj < minOOMScore {
		return refuse("OOM score %d, want at least %d", *p.OOMScoreAdj, minOOMScore)
	}
	if p.Capabilities == nil {
		p.Capabilities = &specs.LinuxCapabilities{}
	}
	if p.Scheduler != nil || p.IOPriority != nil || p.ExecCPUAffinity != nil {
		return refuse("process with scheduler, I/O priority or CPU affinity")
	}
	_, err := rlimits(p.Rlimits)
	return err
}

// checkCwd refuses the form of CVE-2024-21626: a working directory reached through
// a descriptor that the container's init still holds. libcontainer checks the
// directory it ended up in once more from inside.
func checkCwd(cwd string) error {
	if !filepath.IsAbs(cwd) || strings.ContainsRune(cwd, 0) {
		return refuse("working directory %q is not absolute", cwd)
	}
	clean := filepath.Clean(cwd)
	if clean == "/proc" || strings.HasPrefix(clean, "/proc/") {
		return refuse("working directory %q beneath /proc", cwd)
	}
	return nil
}

// checkNamespaces wants own mount, pid, ipc and uts namespaces, or those that the
// policy names.
func checkNamespaces(s *specs.Spec, policy Policy) error {
	have := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range s.Linux.Namespaces {
		have[ns.Type] = true
		if ns.Path != "" && !slices.Contains(policy.JoinNamespaces, ns) {
			return refuse("joining %s namespace %q", ns.Type, ns.Path)
		}
	}
	if !have[specs.MountNamespace] {
		return refuse("container without its own mount namespace")
	}
	for _, t := range []specs.LinuxNamespaceType{specs.PIDNamespace, specs.IPCNamespace, specs.UTSNamespace} {
		if !have[t] && !slices.Contains(policy.ShareNamespaces, t) {
			return refuse("container without its own %s namespace", t)
		}
	}
	return nil
}

// checkLinux refuses what reaches out of the container by other ways: moving
// network devices, resource groups of the CPU, a seccomp listener outside, mounts
// that propagate to the guest, and unified cgroup files that move processes.
func checkLinux(s *specs.Spec, _ Policy) error {
	l := s.Linux
	switch {
	case len(l.NetDevices) > 0:
		return refuse("spec with network devices")
	case l.IntelRdt != nil:
		return refuse("spec with Intel RDT settings")
	case strings.HasSuffix(l.RootfsPropagation, "shared"):
		return refuse("root propagation %q", l.RootfsPropagation)
	}
	if sc := l.Seccomp; sc != nil {
		if sc.ListenerPath != "" || sc.DefaultAction == specs.ActNotify {
			return refuse("seccomp profile with a listener")
		}
		for _, call := range sc.Syscalls {
			if call.Action == specs.ActNotify {
				return refuse("seccomp profile with a listener")
			}
		}
	}
	for name := range l.Resources.Unified {
		controller, _, ok := strings.Cut(name, ".")
		if !ok || controller == "cgroup" || strings.ContainsRune(name, '/') {
			return refuse("cgroup file %q", name)
		}
	}
	return nil
}

// rootBeneath resolves the spec's root path beneath the bundle, without following
// a symbolic link on the way.
func rootBeneath(dir, root string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", fmt.Errorf("resolving bundle: %w", err)
	}
	if !filepath.IsAbs(real) {
		return "", refuse("bundle %q is not absolute", dir)
	}
	rel := root
	if filepath.IsAbs(root) {
		if rel, err = filepath.Rel(filepath.Clean(dir), filepath.Clean(root)); err != nil {
			return "", refuse("root %q outside bundle %q", root, dir)
		}
	}
	rel = filepath.Clean(rel)
	if rel == "." || !filepath.IsLocal(rel) {
		return "", refuse("root %q outside bundle %q", root, dir)
	}
	if err := existsBeneath(real, rel, unix.O_DIRECTORY); err != nil {
		return "", fmt.Errorf("opening root %q in bundle %q: %w", root, dir, err)
	}
	return filepath.Join(real, rel), nil
}

// existsBeneath opens rel beneath dir and closes it again: no component of rel
// may be a symbolic link or lead out of dir. A link that stands in the way is a
// refusal.
func existsBeneath(dir, rel string, flags uint64) error {
	base, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(base)
	how := unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_CLOEXEC | flags,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	}
	fd, err := unix.Openat2(base, rel, &how)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return refuse("%q leads out of %q or through a symbolic link", rel, dir)
	}
	if errors.Is(err, unix.ENOENT) {
		return refuse("%q is not in %q", rel, dir)
	}
	if err != nil {
		return &os.PathError{Op: "openat2", Path: filepath.Join(dir, rel), Err: err}
	}
	return unix.Close(fd)
}

func union(base, more []string) []string {
	all := slices.Clone(base)
	for _, path := range more {
		if !slices.Contains(all, path) {
			all = append(all, path)
		}
	}
	return all
}
