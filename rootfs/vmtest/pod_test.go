// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/ttrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
)

// What the containers of TestVMPod run, each by /bin/sh -c.
const (
	initCommand   = "echo from init > /data/f; head -c 2000000 /dev/zero > /data/big || echo full; exit 7"
	mainCommand   = "hostname; cat /data/f; cat /etc/resolv.conf; echo shared > /dev/shm/f; while :; do sleep 1; done"
	inputCommand  = "mkdir /tmp/x 2>&1; cat"
	ttyCommand    = "read x; stty size; echo got $x"
	deafCommand   = "exec sleep 1000"
	greedyCommand = "tail -c 200000000 /dev/zero"
)

const (
	podDir       = "/run/kata-containers"
	cacheVolume  = podDir + "/sandbox/ephemeral/cache"
	copiedFile   = podDir + "/shared/containers/main-0123456789abcdef-resolv.conf"
	nameServer   = "nameserver 192.0.2.53"
	copiedServer = "nameserver 192.0.2.54"

	cardMAC = "52:54:00:c0:ff:ee"
	gateway = "10.0.2.2" // the emulator's network, and behind it the host's loopback
)

// tenantPolicy allows the pod of TestVMPod and one probe.
func tenantPolicy() string {
	text := "package agent_policy\n\nimport rego.v1\n\ndefault CreateContainerRequest := false\n\ndefault ExecProcessRequest := false\n"
	for _, request := range []string{
		"AddARPNeighbors", "CloseStdin", "CopyFile", "CreateSandbox", "DestroySandbox", "GetOOMEvent", "GuestDetails", "ListInterfaces",
		"PauseContainer", "ReadStream", "RemoveContainer", "ResumeContainer", "SignalProcess", "StartContainer", "StatsContainer",
		"TtyWinResize", "UpdateContainer", "UpdateInterface", "UpdateRoutes", "VolumeStats", "WaitProcess", "WriteStream",
	} {
		text += "\ndefault " + request + "Request := true\n"
	}
	text += "\nCreateContainerRequest if input.OCI.Annotations[\"io.kubernetes.cri.container-type\"] == \"sandbox\"\n"
	for _, command := range []string{initCommand, mainCommand, inputCommand, ttyCommand, deafCommand, greedyCommand} {
		text += fmt.Sprintf("\nCreateContainerRequest if input.OCI.Process.Args == [\"/bin/sh\", \"-c\", %q]\n", command)
	}
	return text + "\nExecProcessRequest if input.process.Args == [\"/bin/cat\", \"/dev/shm/f\"]\n"
}

// podMachine is a running guest with a client on its agent's port.
type podMachine struct {
	kata.TTRPCAgentServiceService
	vm       *VM
	registry string // as the guest names it

	mu     sync.Mutex
	called map[string]map[codes.Code]bool // guarded by mu: the answers to each method
}

// count remembers what was asked and how it was answered.
func (m *podMachine) count(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, _ *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
	err := invoke(ctx, req, resp)
	code := status.Code(err)
	if err == nil {
		code = codes.Code(resp.GetStatus().GetCode())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.called[req.Method] == nil {
		m.called[req.Method] = map[codes.Code]bool{}
	}
	m.called[req.Method][code] = true
	return err
}

// methods lists those that were answered with code.
func (m *podMachine) methods(code codes.Code) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, answers := range m.called {
		if answers[code] {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return fmt.Sprintf("%d: %s", len(names), strings.Join(names, " "))
}

// TestVMPod drives a pod as kata's runtime does, through the machine's vsock device, in a guest whose first process is
// casemate: from the sandbox to the machine's end.
func TestVMPod(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img := busyboxImage(t)
	registry := gateway + ":" + startRegistry(t, img)
	files := append(podFiles(t, img, tenantPolicy(), registry), File{Path: "/tests/busybox", HostPath: busybox, Perm: 0o755})
	vm := bootWith(t, ctx, Config{Append: hostileWords, MAC: cardMAC}, files...)
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
	m := &podMachine{vm: vm, registry: registry, called: map[string]map[codes.Code]bool{}}
	m.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(agentClient(t, ctx, vm, ttrpc.WithUnaryClientInterceptor(m.count)))
	for _, c := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"sandbox", m.makeSandbox}, {"pid1", m.firstProcess}, {"network", m.network}, {"pause", m.makePause}, {"init", m.runInit},
		{"main", m.runMain}, {"refusals", m.refusals}, {"stats", m.stats}, {"input", m.input}, {"tty", m.terminal}, {"signal", m.signal},
		{"oom", m.outOfMemory}, {"teardown", m.teardown}, {"off", m.destroy},
	} {
		check(t, "pod/"+c.name, func(t *testing.T) { c.run(t, ctx) })
		if t.Failed() {
			return
		}
	}
	fmt.Printf("vm: pod requests served %s\nvm: pod requests refused %s\n", m.methods(codes.OK), m.methods(codes.PermissionDenied))
}

// podContainer is a request in the form of a guest pull of the image in the initial RAM file system.
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
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
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

// TestVMPodOfAnotherLaunch: initdata that the host has edited after the launch, here a policy that allows more. The
// guest says so, is healthy and serves nothing.
func TestVMPodOfAnotherLaunch(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	files := podFiles(t, busyboxImage(t), tenantPolicy(), "registry.example")
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
