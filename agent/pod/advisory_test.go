// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// The tests here are named after what was found in other agents and runtimes; each does what the finding did.

func bindMount(source, destination string, options ...string) *kata.Mount {
	return &kata.Mount{Source: source, Destination: destination, Type: "bind", Options: append([]string{"rbind"}, options...)}
}

// run starts a container that ends by itself and returns what it wrote.
func (g *guest) run(t *testing.T, r *kata.CreateContainerRequest) string {
	t.Helper()
	g.start(t, r)
	defer g.remove(t, r.ContainerId)
	return g.output(t, r.ContainerId)
}

// TestRootCVE_2026_41326 (GHSA-q49m-57vm-c8cc; the same in Contrast, GHSA-rh99-wc69-c255, and in c8s, issue 277): the
// string of a path was checked, and then a link in it followed. Here a container owns the tree and swaps what lies in
// it between the pieces of one file.
func TestRootCVE_2026_41326(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const tree = shared + "app-0123456789abcdef-tree"
	outside := t.TempDir()
	piece := func(at int64) error {
		return errOf(g.CopyFile(within(t), &kata.CopyFileRequest{Path: tree + "/d/file", FileMode: unix.S_IFREG | 0o644, DirMode: 0o755, FileSize: 6, Offset: at, Data: []byte("abc")}))
	}
	g.copy(t, dirCopy(tree))
	if err := piece(0); err != nil {
		t.Fatal(err)
	}
	owner := request("app", "sh", "-c", "mkdir /t/e; cat; ")
	owner.OCI.Mounts = append(owner.OCI.Mounts, bindMount(tree, "/t", "rw"))
	g.start(t, owner)
	// What the container's root can do at any moment: another directory in place of the one with the first piece.
	if err := os.Rename(tree+"/d", tree+"/old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(outside+"/file.casemate-part", []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, tree+"/d"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "second piece through a link", piece(3), codes.PermissionDenied, "leads through a link")
	if err := os.Remove(tree + "/d"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tree+"/d", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside+"/file.casemate-part", tree+"/d/file.casemate-part"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "second piece into a link", piece(3), codes.PermissionDenied, "leads through a link")
	if raw, err := os.ReadFile(outside + "/file.casemate-part"); err != nil || string(raw) != "abc" {
		t.Errorf("outside: %q, %v", raw, err)
	}
	g.remove(t, "app")
}

// TestRootGHSA_fmg6_v47x_52wr: lax rules for mounts let the host put any path of the guest over /etc/hosts, a service
// account or a volume. Code refuses whatever the policy says.
func TestRootGHSA_fmg6_v47x_52wr(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.copy(t, fileCopy(shared+"app-0123456789abcdef-hosts", "127.0.0.1 localhost\n"))
	g.start(t, withVolume(request("other", "sleep", "100")))
	for _, source := range []string{
		"/", "/etc", "/etc/hosts", "/run/confidential-containers/cdh.sock", "/dev", "/proc/1/root", "/sys/kernel/config", g.dir, g.dir + "/sandbox", g.dir + "/sandbox/ephemeral",
		g.dir + "/shared", g.dir + "/shared/containers", g.dir + "/namespaces/ipc", g.dir + "/other/rootfs", g.dir + "/sandbox/shm/x", emptyDir + "/sub",
		shared + "app-0123456789abcdef-hosts/..", shared + "nobody-0123456789abcdef-hosts", g.dir + "/sandbox/../../../etc/hosts", g.dir + "//sandbox/shm",
	} {
		r := request("app", "true")
		r.OCI.Mounts = append(r.OCI.Mounts, bindMount(source, "/etc/hosts"))
		wantCode(t, source, errOf(g.CreateContainer(within(t), r)), codes.PermissionDenied, "CreateContainerRequest is blocked by policy: ")
	}
	r := request("app", "cat", "/etc/hosts")
	r.OCI.Mounts = append(r.OCI.Mounts, bindMount(shared+"app-0123456789abcdef-hosts", "/etc/hosts"))
	if got := g.run(t, r); got != "127.0.0.1 localhost\n" {
		t.Errorf("what is allowed: got %q", got)
	}
	g.remove(t, "other")
}

// TestRootKata13615: the number of the last capability was read from a /proc that the workload had made, and an exec
// joined the namespaces of whatever process had the number of the container's first one.
func TestRootKata13615(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.extra = func(root string) error {
		dir := filepath.Join(root, "proc/sys/kernel")
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, "cap_last_cap"), []byte("0\n"), 0o644)
	}
	r := request("fake", "sleep", "100")
	proc := r.OCI.Mounts[0]
	r.OCI.Mounts = r.OCI.Mounts[1:] // without /proc the image's own would be read
	wantCode(t, "no procfs", errOf(g.CreateContainer(within(t), r)), codes.PermissionDenied, "no procfs at /proc")
	r.OCI.Mounts = append(r.OCI.Mounts, proc)
	g.start(t, r)
	for _, set := range capabilitySets(t, "sleep\x00100\x00") {
		if set != "0000000000000000" {
			t.Errorf("a container without capabilities has %s", set)
		}
	}
	g.remove(t, "fake")

	g.images.extra = nil
	g.start(t, request("ended", "true"))
	g.wait(t, "ended", "")
	wantCode(t, "exec in a container that has ended", errOf(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: "ended", ExecId: "exec", Process: &kata.Process{Args: []string{"true"}, Cwd: "/"}})), codes.FailedPrecondition, "not running")
	g.remove(t, "ended")
}

// capabilitySets reads the five sets of the process with a command line, once it is there.
func capabilitySets(t *testing.T, cmdline string) []string {
	t.Helper()
	for deadline := time.Now().Add(timeLimit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		dirs, _ := filepath.Glob("/proc/[0-9]*")
		for _, dir := range dirs {
			if raw, _ := os.ReadFile(dir + "/cmdline"); string(raw) != cmdline {
				continue
			}
			status, err := os.ReadFile(dir + "/status")
			if err != nil {
				t.Fatal(err)
			}
			var sets []string
			for line := range strings.Lines(string(status)) {
				if strings.HasPrefix(line, "Cap") {
					sets = append(sets, strings.Fields(line)[1])
				}
			}
			return sets
		}
	}
	t.Fatalf("no process %q", cmdline)
	return nil
}

// TestRootKata13587 (and CVE-2024-21626): a working directory outside of the root, by a link in the image to a
// descriptor that the container's init still holds.
func TestRootKata13587(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.extra = func(root string) error {
		for fd := 3; fd < 32; fd++ {
			if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", fd), filepath.Join(root, fmt.Sprintf("cwd%d", fd))); err != nil {
				return err
			}
		}
		return nil
	}
	for fd := 3; fd < 32; fd++ {
		r := request("app", "sh", "-c", "ls -d ../../../../etc/debian_version ../../../../../../../etc/debian_version; /bin/busybox pwd")
		r.OCI.Process.Cwd = fmt.Sprintf("/cwd%d", fd)
		if _, err := g.CreateContainer(within(t), r); err != nil {
			continue // what it should be
		}
		if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err == nil {
			if got := g.output(t, "app"); strings.Contains(got, "debian_version\n") {
				t.Errorf("descriptor %d leads out: %q", fd, got)
			}
		}
		g.remove(t, "app")
	}
}

// TestRootCVE_2020_2023: a container reached the guest's disks by a node that it made itself. Nor does the agent open
// one that a container has put where a copied file is expected.
func TestRootCVE_2020_2023(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const tree = shared + "app-0123456789abcdef-tree"
	g.copy(t, fileCopy(tree+"/f", "x"))
	r := request("app", "sh", "-c", "busybox mknod /dev/disk b 7 0 && busybox mknod /t/disk c 1 1 && for d in /dev/disk /t/disk; do head -c 1 $d >/dev/null 2>&1 && echo opened; done; echo done")
	caps := []string{"CAP_MKNOD", "CAP_DAC_OVERRIDE"}
	r.OCI.Process.Capabilities = &kata.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	r.OCI.Mounts = append(r.OCI.Mounts, bindMount(tree, "/t", "rw"))
	if got := g.run(t, r); got != "done\n" {
		t.Errorf("a container's own device: got %q", got)
	}
	for _, planted := range []func(string) error{
		func(at string) error { return unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) },
		func(at string) error { return unix.Mkfifo(at, 0o666) },
	} {
		at := tree + "/big.casemate-part"
		_ = os.Remove(at)
		if err := planted(at); err != nil {
			t.Fatal(err)
		}
		err := errOf(g.CopyFile(within(t), &kata.CopyFileRequest{Path: tree + "/big", FileMode: unix.S_IFREG | 0o644, FileSize: 9, Offset: 1, Data: []byte("x")}))
		wantCode(t, "piece of a file into what is none", err, codes.FailedPrecondition, "contradicts")
	}
}

// TestRootCVE_2020_2026: a mount's destination that is a link in the image, mounted over the guest instead; also
// CVE-2019-19921, where the link led to /proc.
func TestRootCVE_2020_2026(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	outside := t.TempDir()
	g.images.extra = func(root string) error {
		return firstOf(os.Symlink(outside, filepath.Join(root, "out")), os.Symlink("../../../../../../.."+outside, filepath.Join(root, "up")), os.Symlink("/proc", filepath.Join(root, "kernel")))
	}
	g.copy(t, fileCopy(shared+"app-0123456789abcdef-f", "x"))
	for _, to := range []string{"/out", "/out/f", "/up/f"} {
		r := request("app", "true")
		r.OCI.Mounts = append(r.OCI.Mounts, bindMount(shared+"app-0123456789abcdef-f", to))
		if _, err := g.CreateContainer(within(t), r); err == nil {
			g.remove(t, "app")
		}
		if left, err := os.ReadDir(outside); err != nil || len(left) > 0 {
			t.Fatalf("mount at %s: %v, %v in the guest's own directory", to, left, err)
		}
	}
	r := request("app", "true")
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/kernel/self", Type: "tmpfs", Source: "tmpfs"})
	if _, err := g.CreateContainer(within(t), r); err == nil {
		t.Error("a file system over /proc/self, by a link in the image")
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestRootCVE_2020_28914: what was handed over as read-only could be written.
func TestRootCVE_2020_28914(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	const tree = shared + "app-0123456789abcdef-conf"
	g.copy(t, fileCopy(tree+"/f", "before"))
	r := request("app", "sh", "-c", "(echo after > /c/f) 2>/dev/null; busybox mount -o remount,rw /c 2>/dev/null && echo after > /c/f; cat /c/f")
	caps := []string{"CAP_DAC_OVERRIDE", "CAP_CHOWN", "CAP_FOWNER"}
	r.OCI.Process.Capabilities = &kata.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	r.OCI.Mounts = append(r.OCI.Mounts, bindMount(tree, "/c", "ro"))
	if got := g.run(t, r); got != "before" {
		t.Errorf("got %q", got)
	}
}

// TestRootCVE_2019_5736: a container wrote to the program that starts containers, through /proc/PID/exe of an exec.
func TestRootCVE_2019_5736(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	r := request("app", "sh", "-c", "while :; do for p in /proc/[0-9]*; do [ $p = /proc/1 ] || (echo overwritten >> $p/exe) 2>/dev/null && echo wrote $p; done; done")
	caps := []string{"CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"}
	r.OCI.Process.Capabilities = &kata.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	r.OCI.Process.Args[2] = strings.ReplaceAll(r.OCI.Process.Args[2], "&& echo wrote $p", "")
	g.start(t, r)
	for i := range 20 {
		e := &kata.ExecProcessRequest{ContainerId: "app", ExecId: fmt.Sprintf("e%d", i), Process: &kata.Process{Args: []string{"/proc/self/exe", "true"}, Env: []string{"PATH=/bin"}, Cwd: "/"}}
		if _, err := g.ExecProcess(within(t), e); err == nil {
			g.wait(t, "app", e.ExecId)
		}
	}
	g.remove(t, "app")
	after, err := os.ReadFile("/proc/self/exe")
	if err != nil || sha256.Sum256(self) != sha256.Sum256(after) {
		t.Errorf("the agent's program has changed: %v", err)
	}
}

// TestRootCVE_2021_30465: two containers share a volume, and one swaps the directory that is the other's mount point
// for a link while that is mounted.
func TestRootCVE_2021_30465(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.copy(t, fileCopy(shared+"app-0123456789abcdef-f", "x"))
	g.start(t, withVolume(request("swap", "sh", "-c", "cd /data; mkdir d; ln -s / l; echo up; while :; do busybox mv d x; busybox mv l d; busybox mv d l; busybox mv x d; done")))
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "swap", Len: 10}); err != nil || string(r.Data) != "up\n" {
		t.Fatalf("%v, %v", r, err)
	}
	marker := "/casemate-marker"
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(marker) })
	for i := range 20 {
		id := fmt.Sprintf("mounts%d", i)
		r := withVolume(request(id, "sh", "-c", "ls -d "+marker+" /data/d"+marker+" /data/d/m"+marker+"; busybox true"))
		r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/data/d/m", Type: "tmpfs", Source: "tmpfs"})
		if _, err := g.CreateContainer(within(t), r); err != nil {
			continue
		}
		if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: id}); err == nil {
			if got := g.output(t, id); strings.Contains(got, "marker\n") {
				t.Errorf("the guest's root is seen: %q", got)
			}
		}
		g.remove(t, id)
	}
	g.remove(t, "swap")
}

// TestRootCVE_2025_31133 (and 52565, 52881): an image's links in the place of /dev/null, /dev/console and /proc had
// masks, the terminal and labels written somewhere else.
func TestRootCVE_2025_31133(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	g.images.extra = func(root string) error {
		return firstOf(os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(root, "dev/null")), os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(root, "dev/console")),
			os.MkdirAll(filepath.Join(root, "proc/self/attr"), 0o755), os.Symlink("/proc/sys/kernel/core_pattern", filepath.Join(root, "proc/self/attr/exec")))
	}
	for _, terminal := range []bool{false, true} {
		for _, proc := range []bool{false, true} {
			r := request("app", "sh", "-c", "for f in /proc/kcore /proc/keys /proc/timer_list /dev/console /dev/null; do echo overwritten > $f; done; echo done")
			r.OCI.Process.Terminal = terminal
			var mounts []*kata.Mount
			for _, m := range r.OCI.Mounts {
				if !strings.HasPrefix(m.Destination, "/dev") && (proc || m.Destination != "/proc") {
					mounts = append(mounts, m) // the image's own /dev is seen
				}
			}
			r.OCI.Mounts = mounts
			if _, err := g.CreateContainer(within(t), r); err != nil {
				continue
			}
			if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err == nil {
				_ = g.output(t, "app")
			}
			g.remove(t, "app")
		}
	}
	if after, err := os.ReadFile("/proc/sys/kernel/core_pattern"); err != nil || !bytes.Equal(pattern, after) {
		t.Errorf("core_pattern is %q, %v", after, err)
	}
}

// TestRootGHSA_h5f8_crrq_4pw8 (and GHSA-vxg3-w9rv-rhr2, which had not got the fix): secrets of a pod in a log. No line
// of the agent's has anything of a container's environment, arguments, annotations or streams.
func TestRootGHSA_h5f8_crrq_4pw8(t *testing.T) {
	var log lockedBuffer
	g := startLoggedGuest(t, &log)
	g.sandbox(t)
	secret := func(id string, args ...string) *kata.CreateContainerRequest {
		r := request(id, append(args, canary)...)
		r.OCI.Process.Env = append(r.OCI.Process.Env, "TOKEN="+canary)
		r.OCI.Annotations = map[string]string{"token": canary}
		return r
	}
	g.run(t, secret("app", "echo"))
	for name, change := range map[string]func(*kata.CreateContainerRequest){
		"no such program": func(r *kata.CreateContainerRequest) { r.OCI.Process.Args[0] = "/none" },
		"bad directory":   func(r *kata.CreateContainerRequest) { r.OCI.Process.Cwd = "/proc/self/fd/7" },
		"bad mount": func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/x", Type: "ext4"})
		},
		"bad seccomp": func(r *kata.CreateContainerRequest) { r.OCI.Linux.Seccomp = &kata.LinuxSeccomp{DefaultAction: "X"} },
		"refused": func(r *kata.CreateContainerRequest) {
			r.OCI.Hooks = &kata.Hooks{Prestart: []*kata.Hook{{Path: canary}}}
		},
	} {
		r := secret("bad", "true")
		change(r)
		if _, err := g.CreateContainer(within(t), r); err == nil {
			if _, err = g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "bad"}); err != nil && strings.Contains(err.Error(), canary) {
				t.Errorf("%s: the host reads %v", name, err)
			}
			g.remove(t, "bad")
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("%s: the host reads %v", name, err)
		}
	}
	if text := log.String(); strings.Contains(text, canary) {
		t.Errorf("the log has a secret:\n%s", text)
	}
}

// lockedBuffer gathers what several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestRootGHSA_2gv2_cffp_j227 (and GHSA-rr59-xxvx-96qr): annotations that configure kata reached the guest and gave
// more than the pod has. A container with all of them is the one without.
func TestRootGHSA_2gv2_cffp_j227(t *testing.T) {
	g := startGuest(t)
	wantCode(t, "kernel modules", errOf(g.CreateSandbox(within(t), &kata.CreateSandboxRequest{SandboxId: sandboxID, KernelModules: []*kata.KernelModule{{Name: "kvm", Parameters: []string{"x"}}}})), codes.PermissionDenied, "")
	wantCode(t, "guest hooks", errOf(g.CreateSandbox(within(t), &kata.CreateSandboxRequest{SandboxId: sandboxID, GuestHookPath: "/usr/share/hooks"})), codes.PermissionDenied, "")
	g.sandbox(t)
	say := "grep -E '^(Cap|NoNewPrivs|Seccomp|Groups)' /proc/self/status; cut -d' ' -f4- /proc/self/mountinfo | sed 's/,[a-z_]*ino[0-9]*//'; env | sort; ls /dev; cat /proc/1/cmdline"
	plain := g.run(t, request("plain", "busybox", "sh", "-c", say))
	r := request("plain", "busybox", "sh", "-c", say) // the same name: paths have it in them
	r.OCI.Annotations = map[string]string{}
	for _, key := range []string{
		"hypervisor.kernel_params", "hypervisor.virtio_fs_extra_args", "hypervisor.enable_iommu", "hypervisor.path", "hypervisor.image", "hypervisor.file_mem_backend", "hypervisor.guest_hook_path",
		"agent.enable_tracing", "agent.kernel_modules", "agent.container_pipe_size", "runtime.disable_guest_seccomp", "runtime.sandbox_cgroup_only", "runtime.experimental", "runtime.debug_console_enabled",
	} {
		r.OCI.Annotations["io.katacontainers.config."+key] = "true agent.debug_console agent.debug_console_vport=1026 --sandbox=none -o source=/"
	}
	if got := g.run(t, r); got != plain || !strings.Contains(plain, "CapEff") {
		t.Errorf("with annotations\n%s\nwithout\n%s", got, plain)
	}
}

// TestRootGHSA_wwj6_vghv_5p64: a container wrote to the device that holds the guest's own root. Here the host helps: it
// lists the device, allows all of them to the container's control group and gives it the capability to make nodes.
func TestRootGHSA_wwj6_vghv_5p64(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	image := filepath.Join(t.TempDir(), "root.img")
	if err := os.WriteFile(image, bytes.Repeat([]byte("root"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", image).Output()
	if err != nil {
		t.Fatalf("losetup: %v", err)
	}
	disk := strings.TrimSpace(string(out))
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", disk).Run() })
	var st unix.Stat_t
	if err := unix.Stat(disk, &st); err != nil {
		t.Fatal(err)
	}
	major, minor := int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	device := func(r *kata.CreateContainerRequest) {
		r.OCI.Linux.Devices = []*kata.LinuxDevice{{Path: "/dev/pmem0", Type: "b", Major: major, Minor: minor, FileMode: 0o666}}
	}
	for name, change := range map[string]func(*kata.CreateContainerRequest){
		"a device of the spec": device,
		"a disk of kata's": func(r *kata.CreateContainerRequest) {
			r.Devices = []*kata.Device{{Id: "root", Type: "nvdimm", VmPath: disk, ContainerPath: "/dev/pmem0"}}
		},
		"a bound node": func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, bindMount(disk, "/dev/pmem0"))
		},
		"a file system on it": func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/root", Source: disk, Type: "ext4"})
		},
	} {
		r := request("app", "true")
		change(r)
		wantCode(t, name, errOf(g.CreateContainer(within(t), r)), codes.PermissionDenied, "CreateContainerRequest is blocked by policy: ")
	}
	r := request("app", "sh", "-c", fmt.Sprintf("busybox mknod /dev/pmem0 b %d %d; echo overwritten > /dev/pmem0; head -c 4 /dev/pmem0; echo; echo done", major, minor))
	caps := []string{"CAP_MKNOD", "CAP_DAC_OVERRIDE"}
	r.OCI.Process.Capabilities = &kata.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
	if got := g.run(t, r); got != "\ndone\n" {
		t.Errorf("the container got %q", got)
	}
	r.OCI.Linux.Resources.Devices = []*kata.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Allow: true, Type: "b", Major: major, Minor: minor, Access: "rwm"}}
	if _, err := g.CreateContainer(within(t), r); err == nil { // rules of the host's may be refused, or pass unheeded
		g.remove(t, "app")
		if got := g.run(t, r); got != "\ndone\n" {
			t.Errorf("by leave of the host the container got %q", got)
		}
	}
	if raw, err := os.ReadFile(disk); err != nil || !bytes.Equal(raw, bytes.Repeat([]byte("root"), 1<<18)) {
		t.Errorf("the device has changed: %v", err)
	}
}

// TestRootCVE_2024_21626: a working directory below a descriptor that the agent had left open led out of the
// container. Both the first process and one that is added later try each number, by its path and by a link in the image.
func TestRootCVE_2024_21626(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.extra = func(root string) error {
		var errs []error
		for fd := 3; fd < 32; fd++ {
			errs = append(errs, os.Symlink(fmt.Sprintf("/proc/self/fd/%d", fd), filepath.Join(root, fmt.Sprintf("cwd%d", fd))))
		}
		return firstOf(errs...)
	}
	const marker = "casemate-marker-21626"
	if err := os.WriteFile("/"+marker, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove("/" + marker) })
	look := []string{"sh", "-c", "up=.; for i in 1 2 3 4 5 6 7 8 9 10; do ls -d $up/" + marker + " 2>/dev/null; up=$up/..; done; echo looked"}
	g.start(t, request("host", "sleep", "1000"))
	ran := 0
	for fd := 3; fd < 32; fd++ {
		for _, cwd := range []string{fmt.Sprintf("/proc/self/fd/%d", fd), fmt.Sprintf("/proc/self/fd/%d/../../..", fd), fmt.Sprintf("/cwd%d", fd), fmt.Sprintf("/proc/thread-self/fd/%d", fd)} {
			id := fmt.Sprintf("exec%d", ran)
			e := &kata.ExecProcessRequest{ContainerId: "host", ExecId: id, Process: &kata.Process{Args: look, Env: []string{"PATH=/bin"}, Cwd: cwd}}
			ran++
			if _, err := g.ExecProcess(within(t), e); err == nil {
				r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "host", ExecId: id, Len: 4096})
				if err == nil && strings.Contains(string(r.Data), marker) {
					t.Errorf("exec with cwd %s sees the guest's root: %q", cwd, r.Data)
				}
				g.wait(t, "host", id)
			}
			if fd > 16 {
				continue // a container costs more than a process
			}
			r := request("app", look...)
			r.OCI.Process.Cwd = cwd
			if _, err := g.CreateContainer(within(t), r); err != nil {
				continue
			}
			if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err == nil {
				if got := g.output(t, "app"); strings.Contains(got, marker) {
					t.Errorf("container with cwd %s sees the guest's root: %q", cwd, got)
				}
			}
			g.remove(t, "app")
		}
	}
	g.remove(t, "host")
}
