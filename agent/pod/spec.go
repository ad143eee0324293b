// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// spec turns the request's specification into the one to build from. In protobuf
// an empty value is an absent one, and absent is what it stays: a limit of 0 is no
// limit. Package container judges the result.
func (p *plan) spec(shared namespaces, net string) (*specs.Spec, error) {
	l := p.oci.GetLinux()
	s := &specs.Spec{
		Version: specs.Version,
		Process: p.process(),
		Root:    &specs.Root{Readonly: p.oci.GetRoot().GetReadonly()},
		Hooks:   hooks(p.oci.GetHooks()),
		Mounts:  p.mounts(),
		// The pod's UTS namespace has the name; a container cannot set it.
		Linux: &specs.Linux{
			Sysctl: l.GetSysctl(), Resources: resources(l.GetResources()), Devices: devices(l.GetDevices()),
			RootfsPropagation: l.GetRootfsPropagation(), MaskedPaths: l.GetMaskedPaths(), ReadonlyPaths: l.GetReadonlyPaths(),
		},
	}
	var err error
	if s.Linux.Namespaces, err = p.namespaces(shared, net); err != nil {
		return nil, err
	}
	if s.Linux.Seccomp, err = seccomp(l.GetSeccomp()); err != nil {
		return nil, err
	}
	if err := checkHidden(l); err != nil {
		return nil, err
	}
	if len(l.GetUIDMappings()) > 0 || len(l.GetGIDMappings()) > 0 {
		return nil, fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: id-mappings: user namespaces are not served")
	}
	return s, nil
}

// namespaces are the container's own, but for those that the pod shares. Paths in
// the request are the host's and mean nothing here; the network is the guest's, or
// the one in net, the path of the pod's own.
func (p *plan) namespaces(shared namespaces, net string) ([]specs.LinuxNamespace, error) {
	list := []specs.LinuxNamespace{
		{Type: specs.MountNamespace},
		{Type: specs.IPCNamespace, Path: shared.ipc},
		{Type: specs.UTSNamespace, Path: shared.uts},
	}
	pid := specs.LinuxNamespace{Type: specs.PIDNamespace}
	if p.sharePID && !p.pause {
		pid.Path = shared.pid // "" until a pause container has one to share
	}
	list = append(list, pid)
	own, err := p.netNamespace(net)
	if err != nil {
		return nil, err
	}
	list = append(list, own...)
	for _, ns := range p.oci.GetLinux().GetNamespaces() {
		switch ns.GetType() {
		case "cgroup":
			list = append(list, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		case "", "mount", "ipc", "uts", "pid", "network":
		default:
			return nil, fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: namespace: type %s is not served", quoted(ns.GetType()))
		}
	}
	return list, nil
}

// process is the request's; the pause container's is the guest's own.
func (p *plan) process() *specs.Process {
	out := processSpec(p.oci.GetProcess())
	if p.pause {
		out.Args, out.Env, out.Cwd, out.Terminal = p.imageProcess.Args, p.imageProcess.Env, p.imageProcess.Cwd, false
		out.User, out.Capabilities, out.NoNewPrivileges = specs.User{UID: 65535, GID: 65535}, nil, true
	}
	return out
}

func (p *plan) mounts() []specs.Mount {
	var out []specs.Mount
	for _, m := range p.oci.GetMounts() {
		if p.pause && slices.Contains(m.GetOptions(), "rbind") {
			continue // the pause container reads no file
		}
		out = append(out, specs.Mount{Destination: m.GetDestination(), Source: m.GetSource(), Type: m.GetType(), Options: m.GetOptions()})
	}
	return out
}

func hooks(h *kata.Hooks) *specs.Hooks {
	if h == nil {
		return nil
	}
	// That there are any is all that counts: package container refuses them.
	count := len(h.GetPrestart()) + len(h.GetPoststart()) + len(h.GetPoststop()) + len(h.GetCreateRuntime()) + len(h.GetCreateContainer()) + len(h.GetStartContainer())
	return &specs.Hooks{CreateRuntime: make([]specs.Hook, count)}
}

func devices(list []*kata.LinuxDevice) []specs.LinuxDevice {
	var out []specs.LinuxDevice
	for _, d := range list {
		out = append(out, specs.LinuxDevice{Path: d.GetPath(), Type: d.GetType(), Major: d.GetMajor(), Minor: d.GetMinor()})
	}
	return out
}

// resources leaves out what the runtimes clear themselves: network, and what is set
// to nothing.
func resources(r *kata.LinuxResources) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	for _, d := range r.GetDevices() {
		rule := specs.LinuxDeviceCgroup{Allow: d.GetAllow(), Type: d.GetType(), Access: d.GetAccess()}
		if d.GetMajor() != 0 || d.GetMinor() != 0 {
			rule.Major, rule.Minor = pointer(d.GetMajor()), pointer(d.GetMinor())
		}
		out.Devices = append(out.Devices, rule)
	}
	if m := r.GetMemory(); m != nil {
		out.Memory = &specs.LinuxMemory{Limit: set(m.GetLimit()), Reservation: set(m.GetReservation()), Swap: set(m.GetSwap())}
	}
	if c := r.GetCPU(); c != nil {
		out.CPU = &specs.LinuxCPU{Shares: set(c.GetShares()), Quota: set(c.GetQuota()), Period: set(c.GetPeriod()), Cpus: c.GetCpus(), Mems: c.GetMems()}
	}
	if limit := r.GetPids().GetLimit(); limit > 0 {
		out.Pids = &specs.LinuxPids{Limit: &limit}
	}
	for _, h := range r.GetHugepageLimits() {
		if h.GetLimit() == 0 {
			continue // engines write it for each size; a guest may have no controller for them
		}
		out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: h.GetPagesize(), Limit: h.GetLimit()})
	}
	return out
}

// set tells a value from an absent one.
func set[N int64 | uint64](n N) *N {
	if n == 0 {
		return nil
	}
	return &n
}

func pointer[T any](v T) *T { return &v }

// checkHidden keeps what the host wants hidden or read-only to the kernel's own files. What hides is an empty file or
// directory over what is there: over the image's files it would make another image of the one that was verified, such as
// one without its rules of access.
func checkHidden(l *kata.Linux) error {
	for _, path := range slices.Concat(l.GetMaskedPaths(), l.GetReadonlyPaths()) {
		if !ofKernel(path) {
			return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: masks: %s is not among the kernel's files", quoted(path))
		}
	}
	return nil
}

// ofKernel reports whether path is one of procfs' or sysfs', and none that leads out of them, as the root and the
// descriptors of a process do.
func ofKernel(path string) bool {
	rest, proc := strings.CutPrefix(path, "/proc/")
	if path != filepath.Clean(path) || strings.ContainsRune(path, 0) || !proc && !strings.HasPrefix(path, "/sys/") {
		return false
	}
	first, _, _ := strings.Cut(rest, "/")
	return !proc || first != "self" && first != "thread-self" && (first[0] < '0' || first[0] > '9')
}

// maxErrno is the largest error that a filter returns; of larger ones the library keeps 16 bits (seccomp(2)).
const maxErrno = 4095

// seccomp keeps the profile word for word; a name or action that the library does
// not know is its error. A filter may refuse, and not claim that it was done: a program would go on without the
// randomness, the privileges given up or the file written that it believes in.
func seccomp(s *kata.LinuxSeccomp) (*specs.LinuxSeccomp, error) {
	if s == nil || s.GetDefaultAction() == "" {
		return nil, nil
	}
	out := &specs.LinuxSeccomp{DefaultAction: specs.LinuxSeccompAction(s.GetDefaultAction())}
	for _, a := range s.GetArchitectures() {
		out.Architectures = append(out.Architectures, specs.Arch(a))
	}
	for _, f := range s.GetFlags() {
		out.Flags = append(out.Flags, specs.LinuxSeccompFlag(f))
	}
	for _, call := range s.GetSyscalls() {
		rule := specs.LinuxSyscall{Names: call.GetNames(), Action: specs.LinuxSeccompAction(call.GetAction())}
		if e, ok := call.GetErrnoRet().(*kata.LinuxSyscall_Errnoret); ok {
			n := uint(e.Errnoret)
			if rule.Action == specs.ActErrno && (n == 0 || n > maxErrno) {
				return nil, fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: seccomp: a system call that is refused must not report success")
			}
			rule.ErrnoRet = &n
		}
		for _, a := range call.GetArgs() {
			if a.GetIndex() > 5 {
				return nil, fail(codes.InvalidArgument, "seccomp condition on argument %d of a system call", a.GetIndex())
			}
			rule.Args = append(rule.Args, specs.LinuxSeccompArg{Index: uint(a.GetIndex()), Value: a.GetValue(), ValueTwo: a.GetValueTwo(), Op: specs.LinuxSeccompOperator(a.GetOp())})
		}
		out.Syscalls = append(out.Syscalls, rule)
	}
	return out, nil
}
