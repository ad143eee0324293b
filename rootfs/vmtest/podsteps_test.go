// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// The steps of TestVMPod, in their order; each builds on those before.

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

// network sets the machine's card up as kata's runtime does: found by its hardware address, renamed, with an address
// and routes. Images come through it afterwards.
func (m *podMachine) network(t *testing.T, ctx context.Context) {
	_, err := m.UpdateInterface(ctx, &kata.UpdateInterfaceRequest{Interface: &kata.Interface{
		Device: "eth0", Name: "pod0", HwAddr: cardMAC, Mtu: 1400, IPAddresses: []*kata.IPAddress{{Address: "10.0.2.15", Mask: "24"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := m.UpdateRoutes(ctx, &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{{Gateway: gateway, Device: "pod0"}}}})
	if err != nil || !strings.Contains(fmt.Sprint(routes), gateway) {
		t.Errorf("routes: %v, %v", routes, err)
	}
	_, err = m.AddARPNeighbors(ctx, &kata.AddARPNeighborsRequest{Neighbors: &kata.ARPNeighbors{ARPNeighbors: []*kata.ARPNeighbor{{
		ToIPAddress: &kata.IPAddress{Address: "10.0.2.99"}, Device: "pod0", Lladdr: "52:54:00:00:00:01", State: 0x80,
	}}}})
	if err != nil {
		t.Error(err)
	}
	list, err := m.ListInterfaces(ctx, &kata.ListInterfacesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Interfaces {
		if i.Name == "pod0" && i.HwAddr == cardMAC && i.Mtu == 1400 {
			return
		}
	}
	t.Errorf("no interface pod0 in %v", list.Interfaces)
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
	r.Storages[0].Source = m.registry + "/pod/busybox:1"
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Source: copiedFile, Destination: resolver, Type: "bind", Options: []string{"rbind", "ro"}})
	m.start(t, ctx, r)
	m.wantOutput(t, ctx, "main", "", "pod-host\nfrom init\n"+copiedServer+"\n")
	m.remove(t, ctx, "init")
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
	_, swap := m.AddSwap(ctx, &kata.AddSwapRequest{})
	_, lo := m.UpdateInterface(ctx, &kata.UpdateInterfaceRequest{Interface: &kata.Interface{Name: "pod0", HwAddr: cardMAC, IPAddresses: []*kata.IPAddress{{Address: "127.0.0.2", Mask: "8"}}}})
	for _, tt := range []struct {
		err  error
		want string
	}{
		{exec, "ExecProcessRequest is blocked by policy: "},
		{command, "CreateContainerRequest is blocked by policy: "},
		{copied, "CopyFileRequest is blocked by policy: copy-path: "},
		{policy, "SetPolicyRequest is blocked by policy: host-policy: "},
		{clock, "SetGuestDateTimeRequest is blocked by policy: host-clock: "},
		{swap, "AddSwapRequest is blocked by policy: host-memory: "},
		{lo, "UpdateInterfaceRequest is blocked by policy: loopback: "},
	} {
		if s := status.Convert(tt.err); s.Code() != codes.PermissionDenied || !strings.HasPrefix(s.Message(), tt.want) {
			t.Errorf("got %v, want %q", tt.err, tt.want)
		}
	}
}

// stats are those of control groups of version 2, and so is a new limit, which the host of these tests need not have.
func (m *podMachine) stats(t *testing.T, ctx context.Context) {
	const limit = 64 << 20
	_, err := m.UpdateContainer(ctx, &kata.UpdateContainerRequest{ContainerId: "main", Resources: &kata.LinuxResources{Memory: &kata.LinuxMemory{Limit: limit}}})
	if err != nil {
		t.Error(err)
	}
	if _, err := m.PauseContainer(ctx, &kata.PauseContainerRequest{ContainerId: "main"}); err != nil {
		t.Error(err)
	}
	if _, err := m.ResumeContainer(ctx, &kata.ResumeContainerRequest{ContainerId: "main"}); err != nil {
		t.Error(err)
	}
	s, err := m.StatsContainer(ctx, &kata.StatsContainerRequest{ContainerId: "main"})
	if err != nil {
		t.Fatal(err)
	}
	g := s.CgroupStats
	if g.MemoryStats.Usage.Usage == 0 || g.CpuStats.CpuUsage.TotalUsage == 0 || g.PidsStats.Current < 1 || g.MemoryStats.Usage.Limit != limit {
		t.Errorf("got %v", g)
	}
}

// input goes to a container that a seccomp profile keeps from making directories.
func (m *podMachine) input(t *testing.T, ctx context.Context) {
	r := podContainer("input", "container", "/bin/sh", "-c", inputCommand)
	r.OCI.Linux.Seccomp = &kata.LinuxSeccomp{
		DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{"SCMP_ARCH_X86_64"},
		Syscalls: []*kata.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: "SCMP_ACT_ERRNO"}},
	}
	m.start(t, ctx, r)
	if _, err := m.WriteStdin(ctx, &kata.WriteStreamRequest{ContainerId: "input", Data: []byte("one two")}); err != nil {
		t.Error(err)
	}
	if _, err := m.CloseStdin(ctx, &kata.CloseStdinRequest{ContainerId: "input"}); err != nil {
		t.Error(err)
	}
	m.wantOutput(t, ctx, "input", "", "mkdir: can't create directory '/tmp/x': Operation not permitted\none two")
	m.wantExit(t, ctx, "input", "", 0)
	m.remove(t, ctx, "input")
}

func (m *podMachine) terminal(t *testing.T, ctx context.Context) {
	r := podContainer("tty", "container", "/bin/sh", "-c", ttyCommand)
	r.OCI.Process.Terminal = true
	m.start(t, ctx, r)
	if _, err := m.TtyWinResize(ctx, &kata.TtyWinResizeRequest{ContainerId: "tty", Row: 33, Column: 77}); err != nil {
		t.Error(err)
	}
	if _, err := m.WriteStdin(ctx, &kata.WriteStreamRequest{ContainerId: "tty", Data: []byte("hello\n")}); err != nil {
		t.Error(err)
	}
	m.wantOutput(t, ctx, "tty", "", "hello\r\n33 77\r\ngot hello\r\n")
	m.wantExit(t, ctx, "tty", "", 0)
	m.remove(t, ctx, "tty")
}

// signal: a first process without a handler of SIGTERM is ended all the same.
func (m *podMachine) signal(t *testing.T, ctx context.Context) {
	m.start(t, ctx, podContainer("deaf", "container", "/bin/sh", "-c", deafCommand))
	if _, err := m.SignalProcess(ctx, &kata.SignalProcessRequest{ContainerId: "deaf", ExecId: "deaf", Signal: uint32(unix.SIGTERM)}); err != nil {
		t.Error(err)
	}
	m.wantExit(t, ctx, "deaf", "", 137)
	m.remove(t, ctx, "deaf")
}

func (m *podMachine) remove(t *testing.T, ctx context.Context, id string) {
	t.Helper()
	if _, err := m.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Errorf("removing %s: %v", id, err)
	}
}

func (m *podMachine) outOfMemory(t *testing.T, ctx context.Context) {
	r := podContainer("greedy", "container", "/bin/sh", "-c", greedyCommand)
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
		m.remove(t, ctx, id)
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
