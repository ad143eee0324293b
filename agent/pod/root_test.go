// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/pod"
)

// TestRootPodLife is a pod from its sandbox to its end, in the order and with the
// requests of kata's runtimes.
func TestRootPodLife(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	d, err := g.GetGuestDetails(within(t), &kata.GuestDetailsRequest{MemBlockSize: true, MemHotplugProbe: true})
	if err != nil || !d.AgentDetails.SupportsSeccomp || d.AgentDetails.Version != "4.1.0" {
		t.Errorf("guest details: %v, %v", d, err)
	}
	if _, err := g.OnlineCPUMem(within(t), &kata.OnlineCPUMemRequest{CpuOnly: true}); err != nil {
		t.Error(err)
	}
	g.start(t, pauseRequest(sandboxID))

	g.start(t, request("app1", "sh", "-c", "hostname; echo to stderr >&2; echo shared > /dev/shm/f; exit 7"))
	if got := g.output(t, "app1"); got != "pod-host\n" {
		t.Errorf("output: got %q, want the pod's host name", got)
	}
	r, err := g.ReadStderr(within(t), &kata.ReadStreamRequest{ContainerId: "app1", Len: 100})
	if err != nil || string(r.Data) != "to stderr\n" {
		t.Errorf("stderr: got %q, %v", r.GetData(), err)
	}
	var waiters sync.WaitGroup
	for _, execID := range []string{"app1", ""} { // both name the first process
		waiters.Go(func() {
			if code := g.wait(t, "app1", execID); code != 7 {
				t.Errorf("exit code: got %d, want 7", code)
			}
		})
	}
	waiters.Wait()
	g.remove(t, "app1")

	g.start(t, request("app2", "cat", "/dev/shm/f"))
	if got := g.output(t, "app2"); got != "shared\n" {
		t.Errorf("the pod's shared memory: got %q", got)
	}
	g.remove(t, "app2")

	time.Sleep(300 * time.Millisecond) // the pause program handles the signal once it is up
	if _, err := g.SignalProcess(within(t), &kata.SignalProcessRequest{ContainerId: sandboxID, ExecId: sandboxID, Signal: 15}); err != nil {
		t.Error(err)
	}
	if code := g.wait(t, sandboxID, sandboxID); code != 0 {
		t.Errorf("pause ended with %d", code)
	}
	if _, err := g.RemoveStaleVirtiofsShareMounts(within(t), &kata.RemoveStaleVirtiofsShareMountsRequest{}); err != nil {
		t.Error(err)
	}
	g.remove(t, sandboxID)
	if _, err := g.DestroySandbox(within(t), &kata.DestroySandboxRequest{}); err != nil {
		t.Error(err)
	}
	select {
	case <-g.down:
	case <-time.After(timeLimit):
		t.Error("DestroySandbox told nobody")
	}
	if left, _ := os.ReadDir(g.dir + "/shared/containers"); len(left) > 0 {
		t.Errorf("left in the pod's directory: %v", left)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), g.dir+"/") {
		t.Errorf("mounts are left below %s: %v\n%s", g.dir, err, mounts)
	}
}

func TestRootSandboxOnce(t *testing.T) {
	g := startGuest(t)
	wantCode(t, "container before the sandbox", errOf(g.CreateContainer(within(t), request("app", "true"))), codes.FailedPrecondition, "no sandbox")
	for name, tt := range map[string]struct {
		change func(*kata.CreateSandboxRequest)
		code   codes.Code
		text   string
	}{
		"guest hooks":     {func(r *kata.CreateSandboxRequest) { r.GuestHookPath = "/hooks" }, codes.PermissionDenied, "guest-hooks"},
		"kernel module":   {func(r *kata.CreateSandboxRequest) { r.KernelModules = []*kata.KernelModule{{Name: "evil"}} }, codes.PermissionDenied, "kernel-modules"},
		"id with slashes": {func(r *kata.CreateSandboxRequest) { r.SandboxId = "../x" }, codes.InvalidArgument, "no name"},
		"host name":       {func(r *kata.CreateSandboxRequest) { r.Hostname = "a\nb" }, codes.InvalidArgument, "host name"},
		"long host name":  {func(r *kata.CreateSandboxRequest) { r.Hostname = strings.Repeat("a", 65) }, codes.InvalidArgument, "host name"},
		"dns line":        {func(r *kata.CreateSandboxRequest) { r.Dns = []string{"nameserver 1.1.1.1\nx"} }, codes.InvalidArgument, "resolv.conf"},
		"virtiofs":        {func(r *kata.CreateSandboxRequest) { r.Storages[0].Driver = "virtio-fs" }, codes.PermissionDenied, "storage"},
		"mount over etc":  {func(r *kata.CreateSandboxRequest) { r.Storages[0].MountPoint = "/etc" }, codes.PermissionDenied, "storage"},
		"mount by dots": {func(r *kata.CreateSandboxRequest) {
			r.Storages[0].MountPoint = "/run/kata-containers/sandbox/shm/../../../../etc"
		}, codes.PermissionDenied, "storage"},
		"mount option": {func(r *kata.CreateSandboxRequest) { r.Storages[0].Options = []string{"exec"} }, codes.InvalidArgument, "not served"},
		"huge shm":     {func(r *kata.CreateSandboxRequest) { r.Storages[0].Options = []string{"size=99999999999999"} }, codes.InvalidArgument, "size"},
	} {
		r := &kata.CreateSandboxRequest{SandboxId: sandboxID, Storages: []*kata.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: g.dir + "/sandbox/shm"}}}
		tt.change(r)
		if name == "dns line" && !regularResolver() {
			continue
		}
		wantCode(t, name, errOf(g.CreateSandbox(within(t), r)), tt.code, tt.text)
	}
	g.sandbox(t)
	wantCode(t, "second sandbox", errOf(g.CreateSandbox(within(t), &kata.CreateSandboxRequest{SandboxId: "other1"})), codes.FailedPrecondition, "exists")
}

func regularResolver() bool {
	info, err := os.Lstat("/etc/resolv.conf")
	return err == nil && info.Mode().IsRegular()
}

// TestRootCreateRefuses: what no policy can allow, since code refuses it.
func TestRootCreateRefuses(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	for name, tt := range map[string]struct {
		change func(*kata.CreateContainerRequest)
		code   codes.Code
		text   string
	}{
		"id that escapes": {func(r *kata.CreateContainerRequest) { r.ContainerId, r.ExecId = "../../etc", "" }, codes.InvalidArgument, "no name"},
		"another exec id": {func(r *kata.CreateContainerRequest) { r.ExecId = "other" }, codes.InvalidArgument, "exec id"},
		"no process":      {func(r *kata.CreateContainerRequest) { r.OCI.Process = nil }, codes.InvalidArgument, "process"},
		"nothing":         {func(r *kata.CreateContainerRequest) { r.OCI = nil }, codes.InvalidArgument, "process"},
		"device": {func(r *kata.CreateContainerRequest) {
			r.Devices = []*kata.Device{{Type: "blk", ContainerPath: "/dev/x"}}
		}, codes.PermissionDenied, "devices"},
		"guest disk": {func(r *kata.CreateContainerRequest) {
			r.OCI.Linux.Devices = []*kata.LinuxDevice{{Path: "/dev/vda", Type: "b", Major: 254}}
		}, codes.PermissionDenied, "device"},
		"hook": {func(r *kata.CreateContainerRequest) {
			r.OCI.Hooks = &kata.Hooks{Prestart: []*kata.Hook{{Path: "/bin/sh"}}}
		}, codes.PermissionDenied, "hooks"},
		"start hook": {func(r *kata.CreateContainerRequest) {
			r.OCI.Hooks = &kata.Hooks{StartContainer: []*kata.Hook{{Path: "/bin/sh"}}}
		}, codes.PermissionDenied, "hooks"},
		"no image":     {func(r *kata.CreateContainerRequest) { r.Storages = nil }, codes.PermissionDenied, "image"},
		"two images":   {func(r *kata.CreateContainerRequest) { r.Storages = append(r.Storages, r.Storages[0]) }, codes.PermissionDenied, "one image"},
		"block device": {func(r *kata.CreateContainerRequest) { r.Storages[0].Driver = "blk" }, codes.PermissionDenied, "storage"},
		"bind of the guest": {func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/x", Source: "/etc", Type: "bind", Options: []string{"rbind"}})
		}, codes.PermissionDenied, "outside"},
		"bind by dots": {func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/x", Source: "/run/kata-containers/sandbox/../../../etc", Type: "bind", Options: []string{"rbind"}})
		}, codes.PermissionDenied, "outside"},
		"mount over proc": {func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/proc/self", Type: "tmpfs", Source: "x"})
		}, codes.PermissionDenied, "/proc"},
		"ext4 of the host": {func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/x", Type: "ext4", Source: "/dev/vdb"})
		}, codes.PermissionDenied, "mount type"},
		"user namespace": {func(r *kata.CreateContainerRequest) {
			r.OCI.Linux.Namespaces = append(r.OCI.Linux.Namespaces, &kata.LinuxNamespace{Type: "user"})
		}, codes.PermissionDenied, "namespace"},
		"id mapping":            {func(r *kata.CreateContainerRequest) { r.OCI.Linux.UIDMappings = []*kata.LinuxIDMapping{{Size: 1}} }, codes.PermissionDenied, "id-mappings"},
		"cwd in proc":           {func(r *kata.CreateContainerRequest) { r.OCI.Process.Cwd = "/proc/self/fd/8" }, codes.PermissionDenied, "/proc"},
		"oom score":             {func(r *kata.CreateContainerRequest) { r.OCI.Process.OOMScoreAdj = -1000 }, codes.PermissionDenied, "OOM"},
		"shared mount":          {func(r *kata.CreateContainerRequest) { r.SharedMounts = []*kata.SharedMount{{}} }, codes.PermissionDenied, "shared-mounts"},
		"stream port":           {func(r *kata.CreateContainerRequest) { r.StdoutPort = 1 }, codes.PermissionDenied, "passfd"},
		"image that is refused": {func(r *kata.CreateContainerRequest) { r.Storages[0].Source = "denied.example/x" }, codes.PermissionDenied, "Denied by policy"},
		"seccomp argument": {func(r *kata.CreateContainerRequest) {
			r.OCI.Linux.Seccomp = &kata.LinuxSeccomp{DefaultAction: "SCMP_ACT_ALLOW", Syscalls: []*kata.LinuxSyscall{{Names: []string{"mkdir"}, Action: "SCMP_ACT_ERRNO", Args: []*kata.LinuxSeccompArg{{Index: 9}}}}}
		}, codes.InvalidArgument, "argument 9"},
	} {
		t.Run(name, func(t *testing.T) {
			r := request("app", "true")
			tt.change(r)
			err := errOf(g.CreateContainer(within(t), r))
			wantCode(t, name, err, tt.code, tt.text)
			if err != nil && strings.Contains(err.Error(), "canary") {
				t.Errorf("the host reads what is the guest's own: %v", err)
			}
			if _, err := os.Stat(g.dir + "/app"); !os.IsNotExist(err) {
				t.Errorf("left behind: %v", err)
			}
		})
	}
	g.start(t, request("app", "true")) // the id is free
	wantCode(t, "duplicate", errOf(g.CreateContainer(within(t), request("app", "true"))), codes.AlreadyExists, "exists")
	for name, err := range map[string]error{
		"unknown container": errOf(g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "nobody"})),
		"wait for nobody":   errOf(g.WaitProcess(within(t), &kata.WaitProcessRequest{ContainerId: "nobody"})),
	} {
		wantCode(t, name, err, codes.InvalidArgument, "Invalid container id")
	}
	wantCode(t, "unknown process", errOf(g.WaitProcess(within(t), &kata.WaitProcessRequest{ContainerId: "app", ExecId: "exec1"})), codes.NotFound, "Process not found")
	wantCode(t, "signal 0", errOf(g.SignalProcess(within(t), &kata.SignalProcessRequest{ContainerId: "app"})), codes.InvalidArgument, "signal")
	wantCode(t, "read of nothing", errOf(g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app"})), codes.InvalidArgument, "no bytes")
	wantCode(t, "second start", errOf(g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"})), codes.Internal, "internal error")
}

// TestRootStreams: input with an end, a terminal, a grandchild that holds the
// output open, a reader that goes away.
func TestRootStreams(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	t.Run("input", func(t *testing.T) {
		g.start(t, request("in", "cat"))
		for _, part := range []string{"one ", "two"} {
			if r, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "in", Data: []byte(part)}); err != nil || r.Len != uint32(len(part)) {
				t.Errorf("writing: %v, %v", r, err)
			}
		}
		if _, err := g.CloseStdin(within(t), &kata.CloseStdinRequest{ContainerId: "in"}); err != nil {
			t.Error(err)
		}
		if got := g.output(t, "in"); got != "one two" {
			t.Errorf("got %q", got)
		}
		g.wait(t, "in", "in")
		wantCode(t, "input of the dead", errOf(g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "in", Data: []byte("x")})), codes.FailedPrecondition, "closed")
		g.remove(t, "in")
	})
	t.Run("terminal", func(t *testing.T) {
		r := request("tty", "sh", "-c", "read x; stty size; echo got $x")
		r.OCI.Process.Terminal = true
		g.start(t, r)
		if _, err := g.TtyWinResize(within(t), &kata.TtyWinResizeRequest{ContainerId: "tty", Row: 33, Column: 77}); err != nil {
			t.Error(err)
		}
		if _, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "tty", Data: []byte("hello\n")}); err != nil {
			t.Error(err)
		}
		if got := g.output(t, "tty"); !strings.Contains(got, "33 77") || !strings.Contains(got, "got hello") {
			t.Errorf("got %q", got)
		}
		g.remove(t, "tty")
		g.start(t, request("plain", "sleep", "100"))
		wantCode(t, "no terminal", errOf(g.TtyWinResize(within(t), &kata.TtyWinResizeRequest{ContainerId: "plain", Row: 1, Column: 1})), codes.Unavailable, "no tty")
		g.remove(t, "plain")
	})
	t.Run("grandchild holds the output", func(t *testing.T) {
		g.start(t, request("orphan", "sh", "-c", "sleep 100 & echo done"))
		began := time.Now()
		if got := g.output(t, "orphan"); got != "done\n" {
			t.Errorf("got %q", got)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("the end of the output came after %s", took)
		}
		g.remove(t, "orphan")
	})
	t.Run("reader that gives up", func(t *testing.T) {
		g.start(t, request("late", "sh", "-c", "sleep 1; echo late"))
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		wantLate(t, errOf(g.ReadStdout(ctx, &kata.ReadStreamRequest{ContainerId: "late", Len: 10})))
		if got := g.output(t, "late"); got != "late\n" {
			t.Errorf("got %q: a reader that went away took bytes with it", got)
		}
		g.remove(t, "late")
	})
	t.Run("output that nobody reads", func(t *testing.T) {
		g.start(t, request("yes", "yes"))
		time.Sleep(200 * time.Millisecond)
		g.remove(t, "yes") // kills it, whatever waits in the stream
	})
}

// TestRootSignals: SIGTERM ends what does not handle it, SIGKILL all of a
// container, and the dead mind neither.
func TestRootSignals(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	send := func(id, execID string, signal uint32) {
		t.Helper()
		if _, err := g.SignalProcess(within(t), &kata.SignalProcessRequest{ContainerId: id, ExecId: execID, Signal: signal}); err != nil {
			t.Errorf("signal %d to %s: %v", signal, id, err)
		}
	}
	g.start(t, request("deaf", "sleep", "100"))
	send("deaf", "deaf", 15)
	if code := g.wait(t, "deaf", ""); code != 137 {
		t.Errorf("deaf: got %d, want 137", code)
	}
	send("deaf", "deaf", 9)
	created := request("created", "sleep", "100")
	if _, err := g.CreateContainer(within(t), created); err != nil {
		t.Fatal(err)
	}
	send("created", "created", 15)
	if code := g.wait(t, "created", ""); code != 137 {
		t.Errorf("created and never started: got %d, want 137", code)
	}
	g.remove(t, "created")
	g.start(t, request("polite", "sh", "-c", "trap 'exit 3' TERM; echo up; while :; do sleep 1; done"))
	if r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "polite", Len: 10}); err != nil || string(r.Data) != "up\n" {
		t.Fatalf("polite: %v, %v", r, err)
	}
	send("polite", "polite", 15)
	if code := g.wait(t, "polite", ""); code != 3 {
		t.Errorf("polite: got %d, want 3", code)
	}
	g.start(t, request("family", "sh", "-c", "sleep 100 & sleep 100 & wait"))
	send("family", "", 9)
	if code := g.wait(t, "family", ""); code != 137 {
		t.Errorf("family: got %d, want 137", code)
	}
	for _, id := range []string{"deaf", "polite", "family"} {
		g.remove(t, id)
	}
}

// TestRootResources: counters, new limits, freezing, and a container that runs out
// of memory is reported by its name.
func TestRootResources(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, request("idle", "sleep", "100"))
	stats, err := g.StatsContainer(within(t), &kata.StatsContainerRequest{ContainerId: "idle"})
	if err != nil || stats.CgroupStats.PidsStats.Current == 0 || stats.CgroupStats.MemoryStats.Usage.Usage == 0 {
		t.Errorf("stats: %v, %v", stats, err)
	}
	if _, err := g.UpdateContainer(within(t), &kata.UpdateContainerRequest{ContainerId: "idle", Resources: &kata.LinuxResources{Memory: &kata.LinuxMemory{Limit: 64 << 20}}}); err != nil {
		t.Error(err)
	}
	stats, err = g.StatsContainer(within(t), &kata.StatsContainerRequest{ContainerId: "idle"})
	if err != nil || stats.CgroupStats.MemoryStats.Usage.Limit != 64<<20 {
		t.Errorf("limit after the update: %v, %v", stats.GetCgroupStats().GetMemoryStats().GetUsage(), err)
	}
	for _, f := range []func() error{
		func() error {
			return errOf(g.PauseContainer(within(t), &kata.PauseContainerRequest{ContainerId: "idle"}))
		},
		func() error {
			return errOf(g.ResumeContainer(within(t), &kata.ResumeContainerRequest{ContainerId: "idle"}))
		},
	} {
		if err := f(); err != nil {
			t.Error(err)
		}
	}
	g.remove(t, "idle")

	hungry := request("hungry", "sh", "-c", "tail -c 200000000 /dev/zero")
	hungry.OCI.Linux.Resources.Memory.Limit = 20 << 20
	hungry.OCI.Linux.Resources.Memory.Swap = 20 << 20
	g.start(t, hungry)
	event, err := g.GetOOMEvent(within(t), &kata.GetOOMEventRequest{})
	if err != nil || event.ContainerId != "hungry" {
		t.Errorf("out of memory: %v, %v", event, err)
	}
	g.remove(t, "hungry")
}

// TestRootCreateCancelled: a runtime that stopped waiting finds nothing left, and
// another id gets the image.
func TestRootCreateCancelled(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.images.wait = make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantLate(t, errOf(g.CreateContainer(ctx, request("late", "true"))))
	for deadline := time.Now().Add(timeLimit); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(g.dir + "/late"); os.IsNotExist(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the cancelled creation left its directory")
		}
	}
	close(g.images.wait)
	g.start(t, request("again", "true"))
	g.remove(t, "again")
}

// TestRootSharedPID: the pod's containers see each other where the pod asks for it.
func TestRootSharedPID(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	p := pauseRequest(sandboxID)
	p.SandboxPidns = true
	g.start(t, p)
	r := request("app", "sh", "-c", "readlink /proc/1/exe; cat /proc/1/comm")
	r.SandboxPidns = true
	g.start(t, r)
	if got := g.output(t, "app"); !strings.Contains(got, "pause") {
		t.Errorf("process 1 of a shared namespace: got %q, want the pause program", got)
	}
	g.remove(t, "app")
	g.remove(t, sandboxID)
}

// TestRootNetwork: an interface is found by its address, renamed and given
// addresses and routes; loopback is nobody's to change.
func TestRootNetwork(t *testing.T) {
	g := startGuest(t)
	mac := makeLink(t)
	iface := &kata.Interface{Name: "eth0", HwAddr: mac, Mtu: 1400, IPAddresses: []*kata.IPAddress{{Address: "10.9.8.7", Mask: "24"}}}
	if _, err := g.UpdateInterface(within(t), &kata.UpdateInterfaceRequest{Interface: iface}); err != nil {
		t.Fatal(err)
	}
	routes, err := g.UpdateRoutes(within(t), &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{
		{Dest: "", Gateway: "10.9.8.1", Device: "eth0"}, {Dest: "10.9.0.0/16", Device: "eth0", Scope: 253},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, r := range routes.Routes {
		if r.Gateway == "10.9.8.1" && r.Dest == "" || r.Dest == "10.9.0.0/16" {
			found++
		}
	}
	if found != 2 {
		t.Errorf("routes: %v", routes)
	}
	// The kernel may have added its own for link-local addresses meanwhile.
	if again, err := g.ListRoutes(within(t), &kata.ListRoutesRequest{}); err != nil || len(again.Routes) < len(routes.Routes) {
		t.Errorf("routes again: %v, %v", again, err)
	}
	list, err := g.ListInterfaces(within(t), &kata.ListInterfacesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Interfaces {
		if i.Name == "eth0" && (i.Mtu != 1400 || len(i.IPAddresses) == 0 || i.IPAddresses[0].Address != "10.9.8.7") {
			t.Errorf("interface: %v", i)
		}
	}
	if _, err := g.AddARPNeighbors(within(t), &kata.AddARPNeighborsRequest{Neighbors: &kata.ARPNeighbors{ARPNeighbors: []*kata.ARPNeighbor{
		{ToIPAddress: &kata.IPAddress{Address: "10.9.8.1"}, Device: "eth0", Lladdr: "02:00:00:00:00:99", State: 128},
	}}}); err != nil {
		t.Error(err)
	}
	lo := func(change func(*kata.Interface)) *kata.UpdateInterfaceRequest {
		i := &kata.Interface{Name: "eth1", HwAddr: mac, IPAddresses: []*kata.IPAddress{{Address: "10.9.8.9", Mask: "24"}}}
		change(i)
		return &kata.UpdateInterfaceRequest{Interface: i}
	}
	for name, err := range map[string]error{
		"named lo":          errOf(g.UpdateInterface(within(t), lo(func(i *kata.Interface) { i.Name = "lo" }))),
		"long name":         errOf(g.UpdateInterface(within(t), lo(func(i *kata.Interface) { i.Name = strings.Repeat("e", 16) }))),
		"loopback's own":    errOf(g.UpdateInterface(within(t), lo(func(i *kata.Interface) { i.HwAddr = "00:00:00:00:00:00" }))),
		"127.0.0.1":         errOf(g.UpdateInterface(within(t), lo(func(i *kata.Interface) { i.IPAddresses[0].Address = "127.0.0.1" }))),
		"::1":               errOf(g.UpdateInterface(within(t), lo(func(i *kata.Interface) { i.IPAddresses[0].Address = "::1"; i.IPAddresses[0].Mask = "128" }))),
		"route to loopback": errOf(g.UpdateRoutes(within(t), &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{{Dest: "127.0.0.0/8", Device: "eth0"}}}})),
		"route through lo":  errOf(g.UpdateRoutes(within(t), &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{{Dest: "10.0.0.0/8", Device: "lo"}}}})),
		"neighbour on lo":   errOf(g.AddARPNeighbors(within(t), &kata.AddARPNeighborsRequest{Neighbors: &kata.ARPNeighbors{ARPNeighbors: []*kata.ARPNeighbor{{ToIPAddress: &kata.IPAddress{Address: "10.9.8.1"}, Device: "lo"}}}})),
		"mask":              errOf(g.UpdateInterface(within(t), lo(func(i *kata.Interface) { i.IPAddresses[0].Mask = "33" }))),
		"nothing":           errOf(g.UpdateInterface(within(t), &kata.UpdateInterfaceRequest{})),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestRootExec: a further process has its own streams, exit code and signals, and is
// forgotten once its end was told; what it may be is the policy's word, not what it
// may do: no capability beyond the container's, no directory outside.
func TestRootExec(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	main := request("main", "sleep", "100")
	main.OCI.Process.Capabilities = &kata.LinuxCapabilities{Bounding: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Permitted: []string{"CAP_KILL"}}
	main.OCI.Process.NoNewPrivileges = true
	g.start(t, main)
	if _, err := g.UpdateContainer(within(t), &kata.UpdateContainerRequest{ContainerId: "main", Resources: &kata.LinuxResources{Memory: &kata.LinuxMemory{Limit: 64 << 20}}}); err != nil {
		t.Error(err)
	}
	exec := func(id string, change func(*kata.ExecProcessRequest), args ...string) error {
		r := &kata.ExecProcessRequest{ContainerId: "main", ExecId: id, Process: &kata.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"}}
		if change != nil {
			change(r)
		}
		return errOf(g.ExecProcess(within(t), r))
	}
	if err := exec("probe", nil, "sh", "-c", "grep -E '^(CapEff|NoNewPrivs)' /proc/self/status; hostname; exit 4"); err != nil {
		t.Fatal(err)
	}
	out, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "main", ExecId: "probe", Len: 4096})
	if err != nil || !strings.Contains(string(out.Data), "0000000000000020") || !strings.Contains(string(out.Data), "NoNewPrivs:\t1") {
		t.Errorf("got %q, %v: want the container's one capability and no new privileges", out.GetData(), err)
	}
	if code := g.wait(t, "main", "probe"); code != 4 {
		t.Errorf("exit code: got %d, want 4", code)
	}
	wantCode(t, "wait again", errOf(g.WaitProcess(within(t), &kata.WaitProcessRequest{ContainerId: "main", ExecId: "probe"})), codes.NotFound, "Process not found")
	if err := exec("cat", nil, "cat"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, "id in use", exec("cat", nil, "cat"), codes.AlreadyExists, "exists")
	if _, err := g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "main", ExecId: "cat", Data: []byte("through")}); err != nil {
		t.Error(err)
	}
	if out, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "main", ExecId: "cat", Len: 100}); err != nil || string(out.Data) != "through" {
		t.Errorf("got %q, %v", out.GetData(), err)
	}
	if _, err := g.SignalProcess(within(t), &kata.SignalProcessRequest{ContainerId: "main", ExecId: "cat", Signal: 15}); err != nil {
		t.Error(err)
	}
	if code := g.wait(t, "main", "cat"); code != 143 {
		t.Errorf("signalled: got %d, want 143", code)
	}
	for name, tt := range map[string]struct {
		change func(*kata.ExecProcessRequest)
		code   codes.Code
	}{
		"id that escapes":     {func(r *kata.ExecProcessRequest) { r.ExecId = "../x" }, codes.InvalidArgument},
		"id of the container": {func(r *kata.ExecProcessRequest) { r.ExecId = "main" }, codes.InvalidArgument},
		"no process":          {func(r *kata.ExecProcessRequest) { r.Process = nil }, codes.InvalidArgument},
		"no arguments":        {func(r *kata.ExecProcessRequest) { r.Process.Args = nil }, codes.PermissionDenied},
		"more capabilities": {func(r *kata.ExecProcessRequest) {
			r.Process.Capabilities = &kata.LinuxCapabilities{Effective: []string{"CAP_SYS_ADMIN"}}
		}, codes.PermissionDenied},
		"CVE-2024-21626":         {func(r *kata.ExecProcessRequest) { r.Process.Cwd = "/proc/self/fd/7" }, codes.PermissionDenied},
		"unkillable":             {func(r *kata.ExecProcessRequest) { r.Process.OOMScoreAdj = -1000 }, codes.PermissionDenied},
		"in the pause container": {func(r *kata.ExecProcessRequest) { r.ContainerId = sandboxID }, codes.PermissionDenied},
		"user by name":           {func(r *kata.ExecProcessRequest) { r.StringUser = &kata.StringUser{} }, codes.InvalidArgument},
		"unknown container":      {func(r *kata.ExecProcessRequest) { r.ContainerId = "nobody" }, codes.InvalidArgument},
	} {
		wantCode(t, name, exec("bad", tt.change, "true"), tt.code, "")
	}
	if err := exec("left", nil, "sleep", "100"); err != nil {
		t.Fatal(err)
	}
	g.remove(t, "main")
	g.remove(t, sandboxID)
}

// TestRootStartsAreTold: each container of an image is told of once, before it runs, with what its image is; one that
// cannot be told of does not run.
func TestRootStartsAreTold(t *testing.T) {
	g := startGuest(t)
	g.sandbox(t)
	g.start(t, pauseRequest(sandboxID))
	g.start(t, request("app", "true"))
	g.wait(t, "app", "")
	for range 3 {
		if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err == nil {
			t.Error("a container was started twice")
		}
	}
	if want := (pod.Start{ID: "app", Image: "registry.example/app:1", Digest: "sha256:00"}); len(g.starts) != 1 || g.starts[0] != want {
		t.Errorf("told of %+v, want %+v alone", g.starts, want)
	}
	g.unrecorded = true
	if _, err := g.CreateContainer(within(t), request("more", "sleep", "100")); err != nil {
		t.Fatal(err)
	}
	err := errOf(g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "more"}))
	wantCode(t, "a start that cannot be told of", err, codes.FailedPrecondition, "cannot be recorded")
	if strings.Contains(err.Error(), canary) {
		t.Errorf("the host reads %v", err)
	}
	g.remove(t, "more")
	g.remove(t, "app")
}
