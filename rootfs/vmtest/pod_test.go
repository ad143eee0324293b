// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// tenantPolicy allows the pod of TestVMPod and one probe.
const tenantPolicy = `package agent_policy

import rego.v1

default CreateSandboxRequest := true
default GuestDetailsRequest := true
default StartContainerRequest := true
default ReadStreamRequest := true
default WaitProcessRequest := true
default StatsContainerRequest := true
default GetOOMEventRequest := true
default VolumeStatsRequest := true
default RemoveContainerRequest := true
default DestroySandboxRequest := true
default CopyFileRequest := true
default CreateContainerRequest := false
default ExecProcessRequest := false

commands := {
	"echo from init > /data/f; head -c 2000000 /dev/zero > /data/big || echo full; exit 7",
	"hostname; cat /data/f; cat /etc/resolv.conf; echo shared > /dev/shm/f; while :; do sleep 1; done",
	"tail -c 200000000 /dev/zero",
}

CreateContainerRequest if input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"

CreateContainerRequest if {
	input.OCI.Process.Args[0] == "/bin/sh"
	input.OCI.Process.Args[1] == "-c"
	input.OCI.Process.Args[2] in commands
	count(input.OCI.Process.Args) == 3
}

ExecProcessRequest if input.process.Args == ["/bin/cat", "/dev/shm/f"]
`

const (
	initCommand  = "echo from init > /data/f; head -c 2000000 /dev/zero > /data/big || echo full; exit 7"
	mainCommand  = "hostname; cat /data/f; cat /etc/resolv.conf; echo shared > /dev/shm/f; while :; do sleep 1; done"
	greedyOne    = "tail -c 200000000 /dev/zero"
	podDir       = "/run/kata-containers"
	cacheVolume  = podDir + "/sandbox/ephemeral/cache"
	copiedFile   = podDir + "/shared/containers/main-0123456789abcdef-resolv.conf"
	nameServer   = "nameserver 192.0.2.53"
	copiedServer = "nameserver 192.0.2.54"
)

// podMachine is a running guest with a client on its agent's port.
type podMachine struct {
	kata.TTRPCAgentServiceService
	vm *VM
}

// TestVMPod drives a pod as kata's runtime does, through the machine's vsock device, in a guest whose first process is
// casemate: from the sandbox to the machine's end.
func TestVMPod(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	files := append(podFiles(t, tenantPolicy), File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755})
	vm := bootWith(t, ctx, Config{Append: hostileWords}, files...)
	check(t, "pod/door", func(t *testing.T) {
		for _, text := range []string{"casemate: ready: ", "casemate: weak: testsnp.dir", "casemate: open: "} {
			if _, err := vm.Console.Expect(ctx, text); err != nil {
				t.Fatal(err)
			}
		}
	})
	if t.Failed() {
		return
	}
	m := &podMachine{kata.NewTTRPCAgentServiceClient(agentClient(t, ctx, vm)), vm}
	for _, c := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"sandbox", m.makeSandbox}, {"pid1", m.firstProcess}, {"pause", m.makePause}, {"init", m.runInit}, {"main", m.runMain},
		{"refusals", m.refusals}, {"stats", m.stats}, {"oom", m.outOfMemory}, {"teardown", m.teardown}, {"off", m.destroy},
	} {
		check(t, "pod/"+c.name, func(t *testing.T) { c.run(t, ctx) })
		if t.Failed() {
			return
		}
	}
}

// container is a request in the form of a guest pull of the image in the initial RAM file system.
func podContainer(id, kind string, args ...string) *kata.CreateContainerRequest {
	return &kata.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		Storages: []*kata.Storage{{
			Driver: "image_guest_pull", Source: "oci:" + imageDir, Fstype: "overlay", MountPoint: podDir + "/" + id + "/rootfs",
			DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"` + kind + `"}}`},
		}},
		OCI: &kata.Spec{
			Version: "1.1.0", Annotations: map[string]string{"io.kubernetes.cri.container-type": kind},
			Process: &kata.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", User: &kata.User{}, Capabilities: &kata.LinuxCapabilities{}, NoNewPrivileges: true},
			Root:    &kata.Root{Path: podDir + "/" + id + "/rootfs"},
			Mounts: []*kata.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
				{Destination: "/dev/shm", Type: "bind", Source: podDir + "/sandbox/shm", Options: []string{"rbind"}},
				{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			},
			Linux: &kata.Linux{
				Namespaces: []*kata.LinuxNamespace{{Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "pid"}},
				Resources:  &kata.LinuxResources{Memory: &kata.LinuxMemory{}, CPU: &kata.LinuxCPU{}},
			},
		},
	}
}

// withCache gives a container the pod's memory-backed emptyDir at /data.
func withCache(r *kata.CreateContainerRequest) *kata.CreateContainerRequest {
	r.Storages = append(r.Storages, &kata.Storage{Driver: "ephemeral", Source: "tmpfs", Fstype: "tmpfs", MountPoint: cacheVolume, Options: []string{"size=1048576"}})
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: cacheVolume, Destination: "/data", Type: "bind", Options: []string{"rbind", "rprivate", "rw"}})
	return r
}

func (m *podMachine) start(t *testing.T, ctx context.Context, r *kata.CreateContainerRequest) {
	t.Helper()
	if _, err := m.CreateContainer(ctx, r); err != nil {
		t.Fatalf("creating %s: %v", r.ContainerId, err)
	}
	if _, err := m.StartContainer(ctx, &kata.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		t.Fatalf("starting %s: %v", r.ContainerId, err)
	}
}

func (m *podMachine) wantOutput(t *testing.T, ctx context.Context, id, execID, want string) {
	t.Helper()
	var got []byte
	for len(got) < len(want) {
		r, err := m.ReadStdout(ctx, &kata.ReadStreamRequest{ContainerId: id, ExecId: execID, Len: 4096})
		if err != nil || len(r.Data) == 0 {
			t.Fatalf("output of %s: %q, then %v", id, got, err)
		}
		got = append(got, r.Data...)
	}
	if string(got) != want {
		t.Errorf("output of %s: got %q, want %q", id, got, want)
	}
}

func (m *podMachine) wantExit(t *testing.T, ctx context.Context, id, execID string, want int32) {
	t.Helper()
	if r, err := m.WaitProcess(ctx, &kata.WaitProcessRequest{ContainerId: id, ExecId: execID}); err != nil || r.Status != want {
		t.Errorf("%s: got %v, %v, want exit code %d", id, r, err, want)
	}
}

func (m *podMachine) makeSandbox(t *testing.T, ctx context.Context) {
	_, err := m.CreateSandbox(ctx, &kata.CreateSandboxRequest{
		SandboxId: "sandbox0", Hostname: "pod-host", Dns: []string{nameServer},
		Storages: []*kata.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: podDir + "/sandbox/shm",
			Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=1048576"},
		}},
	})
	if err != nil {
		t.Error(err)
	}
}

// firstProcess looks at the guest itself from a process outside of the pod.
func (m *podMachine) firstProcess(t *testing.T, ctx context.Context) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"cat", resolver}, nameServer + "\n"},          // the puller's name servers
		{[]string{"cat", "/proc/mounts"}, "/sandbox/shm tmpfs"}, // the pod's shared memory
		{[]string{"hostname"}, "casemate\n"},                    // the pod's name is the pod's alone
		{[]string{"ip", "address", "show", "lo"}, "127.0.0.1/8"},
		{[]string{"ip", "address", "show", "lo"}, "LOOPBACK,UP"},
	} {
		var out bytes.Buffer
		code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: tt.args, Seconds: 60}, &out)
		if err != nil || code != 0 || !strings.Contains(out.String(), tt.want) {
			t.Errorf("%v: exit code %d, %v, want %q in %q", tt.args, code, err, tt.want, out.Bytes())
		}
	}
}

func (m *podMachine) makePause(t *testing.T, ctx context.Context) {
	d, err := m.GetGuestDetails(ctx, &kata.GuestDetailsRequest{MemBlockSize: true})
	if err != nil || !d.AgentDetails.InitDaemon || !d.AgentDetails.SupportsSeccomp {
		t.Errorf("guest details: %v, %v", d, err)
	}
	m.start(t, ctx, podContainer("sandbox0", "sandbox", "/pause"))
}

func (m *podMachine) runInit(t *testing.T, ctx context.Context) {
	m.start(t, ctx, withCache(podContainer("init", "container", "/bin/sh", "-c", initCommand)))
	m.wantOutput(t, ctx, "init", "", "full\n") // the volume's size holds
	m.wantExit(t, ctx, "init", "init", 7)
}

func (m *podMachine) runMain(t *testing.T, ctx context.Context) {
	_, err := m.CopyFile(ctx, &kata.CopyFileRequest{
		Path: copiedFile, FileMode: unix.S_IFREG | 0o644, DirMode: 0o755, FileSize: int64(len(copiedServer) + 1), Data: []byte(copiedServer + "\n"),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := withCache(podContainer("main", "container", "/bin/sh", "-c", mainCommand))
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: copiedFile, Destination: resolver, Type: "bind", Options: []string{"rbind", "ro"}})
	m.start(t, ctx, r)
	m.wantOutput(t, ctx, "main", "", "pod-host\nfrom init\n"+copiedServer+"\n")
	if _, err := m.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: "init"}); err != nil {
		t.Error(err)
	}
	use, err := m.GetVolumeStats(ctx, &kata.VolumeStatsRequest{VolumeGuestPath: cacheVolume})
	if err != nil || use.Usage[0].Total != 1<<20 || use.Usage[0].Used == 0 {
		t.Errorf("the volume that main still has: %v, %v", use, err)
	}
	probe := &kata.ExecProcessRequest{ContainerId: "main", ExecId: "probe", Process: &kata.Process{Args: []string{"/bin/cat", "/dev/shm/f"}, Env: []string{"PATH=/bin"}, Cwd: "/"}}
	if _, err := m.ExecProcess(ctx, probe); err != nil {
		t.Fatalf("the probe that the policy names: %v", err)
	}
	m.wantOutput(t, ctx, "main", "probe", "shared\n")
	m.wantExit(t, ctx, "main", "probe", 0)
}

// refusals: what the tenant's policy does not name, and what no policy can allow.
func (m *podMachine) refusals(t *testing.T, ctx context.Context) {
	_, exec := m.ExecProcess(ctx, &kata.ExecProcessRequest{ContainerId: "main", ExecId: "e", Process: &kata.Process{Args: []string{"/bin/sh"}}})
	_, command := m.CreateContainer(ctx, podContainer("other", "container", "/bin/sh", "-c", "id"))
	_, copied := m.CopyFile(ctx, &kata.CopyFileRequest{Path: "/etc/passwd", FileMode: unix.S_IFREG | 0o644})
	_, policy := m.SetPolicy(ctx, &kata.SetPolicyRequest{Policy: "package agent_policy"})
	_, clock := m.SetGuestDateTime(ctx, &kata.SetGuestDateTimeRequest{})
	_, update := m.UpdateContainer(ctx, &kata.UpdateContainerRequest{ContainerId: "main"})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{exec, "ExecProcessRequest is blocked by policy: "},
		{command, "CreateContainerRequest is blocked by policy: "},
		{copied, "CopyFileRequest is blocked by policy: copy-path: "},
		{policy, "SetPolicyRequest is blocked by policy: host-policy: "},
		{clock, "SetGuestDateTimeRequest is blocked by policy: host-clock: "},
		{update, "UpdateContainerRequest is blocked by policy: "},
	} {
		if s := status.Convert(tt.err); s.Code() != codes.PermissionDenied || !strings.HasPrefix(s.Message(), tt.want) {
			t.Errorf("got %v, want %q", tt.err, tt.want)
		}
	}
}

// stats are those of control groups of version 2, which the host of these tests does not have.
func (m *podMachine) stats(t *testing.T, ctx context.Context) {
	s, err := m.StatsContainer(ctx, &kata.StatsContainerRequest{ContainerId: "main"})
	if err != nil {
		t.Fatal(err)
	}
	g := s.CgroupStats
	if g.MemoryStats.Usage.Usage == 0 || g.CpuStats.CpuUsage.TotalUsage == 0 || g.PidsStats.Current < 1 {
		t.Errorf("got %v", g)
	}
}

func (m *podMachine) outOfMemory(t *testing.T, ctx context.Context) {
	r := podContainer("greedy", "container", "/bin/sh", "-c", greedyOne)
	r.OCI.Linux.Resources.Memory.Limit, r.OCI.Linux.Resources.Memory.Swap = 16<<20, 16<<20
	m.start(t, ctx, r)
	if e, err := m.GetOOMEvent(ctx, &kata.GetOOMEventRequest{}); err != nil || e.ContainerId != "greedy" {
		t.Errorf("got %v, %v", e, err)
	}
	m.wantExit(t, ctx, "greedy", "", 137)
}

// teardown ends what still runs, and finds nothing left of it in the guest.
func (m *podMachine) teardown(t *testing.T, ctx context.Context) {
	for _, id := range []string{"greedy", "main", "sandbox0"} {
		if _, err := m.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: id}); err != nil {
			t.Errorf("removing %s: %v", id, err)
		}
	}
	var out bytes.Buffer
	code, err := m.vm.Run(ctx, remote.Request{Run: "busybox", Args: []string{"cat", "/proc/1/mounts"}, Seconds: 60}, &out)
	if err != nil || code != 0 {
		t.Fatalf("exit code %d, %v", code, err)
	}
	for _, left := range []string{"overlay", cacheVolume, "/rootfs"} {
		if strings.Contains(out.String(), left) {
			t.Errorf("%s is left in\n%s", left, out.Bytes())
		}
	}
}

// destroy: the answer arrives, and the machine switches itself off.
func (m *podMachine) destroy(t *testing.T, ctx context.Context) {
	if _, err := m.DestroySandbox(ctx, &kata.DestroySandboxRequest{}); err != nil {
		t.Error(err)
	}
	if err := m.vm.Wait(ctx); err != nil {
		t.Error(err)
	}
	if text := m.vm.Console.String(); !strings.Contains(text, "casemate: leaving: ") || strings.Contains(text, "casemate: failed: ") {
		t.Error("the guest did not leave in order")
	}
}

// TestVMPodOfAnotherLaunch: initdata that the host has edited after the launch, here a policy that allows more. The
// guest says so, is healthy and serves nothing.
func TestVMPodOfAnotherLaunch(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	files := podFiles(t, tenantPolicy)
	for i, f := range files {
		if f.Path == initdataDoc {
			files[i].Text = strings.Replace(f.Text, "default ExecProcessRequest := false", "default ExecProcessRequest := true", 1)
		}
	}
	vm := bootWith(t, ctx, Config{}, files...)
	check(t, "pod/parked", func(t *testing.T) {
		const reason = "initdata: the guest's configuration or initdata was not accepted"
		if _, err := vm.Console.Expect(ctx, "casemate: parked: "+reason); err != nil {
			t.Fatal(err)
		}
		client := agentClient(t, ctx, vm)
		if err := health(ctx, client); err != nil {
			t.Error(err)
		}
		_, err := kata.NewTTRPCAgentServiceClient(client).CreateSandbox(ctx, &kata.CreateSandboxRequest{SandboxId: "sandbox0"})
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "CreateSandboxRequest is blocked by policy: "+reason {
			t.Errorf("got %v", err)
		}
	})
}
