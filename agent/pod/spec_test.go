// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
)

// specOf is what a request of the host's with this platform part becomes.
func specOf(l *kata.Linux) error {
	p := &plan{oci: &kata.Spec{Process: &kata.Process{Args: []string{"true"}}, Root: &kata.Root{}, Linux: l}}
	_, err := p.spec(namespaces{}, "")
	return err
}

// TestHostHidesTheImagesFiles: an empty file over one of the verified image's would make it another image.
func TestHostHidesTheImagesFiles(t *testing.T) {
	for path, ok := range map[string]bool{
		"/proc/kcore": true, "/proc/sys": true, "/sys/firmware": true, "/sys/devices/virtual/powercap": true, "/proc/fs/nfsd": true,
		"/etc/app/access.conf": false, "/app": false, "/": false, "": false, "/proc": false, "/sys": false, "/procfs/x": false, "sys/x": false, "proc/kcore": false,
		"/proc/../etc/passwd": false, "/sys/../etc/passwd": false, "/sys/./x": false, "//sys/x": false, "/sys/x\x00": false,
		"/proc/self/root/etc/passwd": false, "/proc/self": false, "/proc/thread-self/cwd": false, "/proc/1/root/etc/passwd": false, "/proc/1": false,
	} {
		for kind, l := range map[string]*kata.Linux{"masked": {MaskedPaths: []string{"/proc/acpi", path}}, "read-only": {ReadonlyPaths: []string{path}}} {
			err := specOf(l)
			if ok && err != nil || !ok && status.Code(err) != codes.PermissionDenied {
				t.Errorf("%q %s: got %v", path, kind, err)
			}
		}
	}
}

// TestSeccompThatClaimsSuccess: a filter that answers 0 for getrandom or setuid makes a program believe in what was not
// done.
func TestSeccompThatClaimsSuccess(t *testing.T) {
	for _, tt := range []struct {
		action string
		errno  uint32
		ok     bool
	}{
		{"SCMP_ACT_ERRNO", 1, true}, {"SCMP_ACT_ERRNO", 38, true}, {"SCMP_ACT_ERRNO", 4095, true}, {"SCMP_ACT_ALLOW", 0, true},
		{"SCMP_ACT_ERRNO", 0, false}, {"SCMP_ACT_ERRNO", 4096, false}, {"SCMP_ACT_ERRNO", 1 << 16, false}, {"SCMP_ACT_ERRNO", 1<<32 - 1, false},
	} {
		err := specOf(&kata.Linux{Seccomp: &kata.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Syscalls: []*kata.LinuxSyscall{
			{Names: []string{"getrandom"}, Action: tt.action, ErrnoRet: &kata.LinuxSyscall_Errnoret{Errnoret: tt.errno}},
		}}})
		if tt.ok && err != nil || !tt.ok && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s %d: got %v", tt.action, tt.errno, err)
		}
	}
}

// TestTerminationMessageByName: the source of a tmpfs is a text that nobody looks at, and no file to be read to the host.
func TestTerminationMessageByName(t *testing.T) {
	const secret = "/run/kata-containers/shared/containers/pod/rootfs/local/data/secret"
	spec := func(m *kata.Mount) *kata.Spec {
		return &kata.Spec{Annotations: map[string]string{terminationAnnotation: "/x"}, Mounts: []*kata.Mount{m}}
	}
	if got := terminationFile(spec(&kata.Mount{Destination: "/x", Type: "tmpfs", Source: secret})); got != "" {
		t.Errorf("tmpfs: %q is read", got)
	}
	if got := terminationFile(spec(&kata.Mount{Destination: "/x", Type: "bind", Source: "log", Options: []string{"rbind"}})); got != "log" {
		t.Errorf("bind: got %q", got)
	}
}

// TestMountOptionsThatSayTwoThings: a policy that wants "ro" among the options, and what is known to be no place for
// devices, are not talked out of it by another option of the same mount.
func TestMountOptionsThatSayTwoThings(t *testing.T) {
	s := &Service{cfg: Config{Dir: DefaultDir}, trees: map[string]bool{"tree": true}}
	for options, ok := range map[string]bool{
		"rbind,ro": true, "rbind,rprivate,rw": true, "bind,rro,nosuid,nodev": true, "rbind": true,
		"rbind,ro,rw": false, "rbind,rw,ro": false, "rbind,rro,rw": false, "rbind,ro,rrw": false, "rrw,rbind,ro": false,
		"rbind,nosuid,nodev,rsuid": false, "rbind,rdev,nodev": false, "rbind,noexec,rexec": false, "rbind,rsymfollow": false,
	} {
		err := s.checkSources(new(entry), []specs.Mount{{Destination: "/x", Type: "bind", Source: s.shared() + "/tree", Options: strings.Split(options, ",")}})
		if ok && err != nil || !ok && status.Code(err) != codes.PermissionDenied {
			t.Errorf("%s: got %v", options, err)
		}
	}
	if err := s.checkSources(new(entry), []specs.Mount{{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"ro", "rw"}}}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("sysfs: got %v", err)
	}
}

// TestSandboxOfManyMounts: a request of a few megabytes has room for tens of thousands of mounts, each the kernel's memory.
func TestSandboxOfManyMounts(t *testing.T) {
	shm := &kata.Storage{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: DefaultDir + "/sandbox/shm"}
	if err := checkSandbox(&kata.CreateSandboxRequest{SandboxId: "pod", Storages: []*kata.Storage{shm}}); err != nil {
		t.Error(err)
	}
	if err := checkSandbox(&kata.CreateSandboxRequest{SandboxId: "pod", Storages: []*kata.Storage{shm, shm}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("twice: got %v", err)
	}
}
