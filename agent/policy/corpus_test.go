// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
)

// row is one request of a sequence on one policy: the verdict may depend on the rows before.
type row struct {
	name string
	msg  proto.Message
	want string // code of the denial, "" when allowed
}

const (
	deny   = "policy-denied"
	silent = "policy-silent"
	cid    = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
	shared = "/run/kata-containers/shared/containers/" + cid + "-0123456789abcdef-"
)

func codeOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return ""
	}
	var d *agent.Denial
	if !errors.As(err, &d) {
		t.Fatalf("an error that is no denial: %v", err)
	}
	return d.Reason.Code
}

func replayRows(t *testing.T, p *Policy, rows []row) {
	t.Helper()
	for _, r := range rows {
		request := string(r.msg.ProtoReflect().Descriptor().Name())
		if got := codeOf(t, p.Allow(t.Context(), request, r.msg)); got != r.want {
			t.Errorf("%s: %s: got %q, want %q", r.name, request, got, r.want)
		}
	}
}

func load(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Load([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func loadFile(t *testing.T, name string) *Policy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return load(t, string(text))
}

// create is CreateContainer as kata's Go runtime sends it: no user, hooks absent, namespaces without network.
func create(id string, args, env []string, change ...func(*kata.CreateContainerRequest)) *kata.CreateContainerRequest {
	caps := []string{"CAP_CHOWN", "CAP_KILL"}
	m := &kata.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		Storages: []*kata.Storage{{Driver: "image_guest_pull", Source: "pause", Fstype: "overlay", MountPoint: "/run/kata-containers/" + id + "/rootfs"}},
		OCI: &kata.Spec{
			Version:     "1.1.0",
			Process:     &kata.Process{Args: args, Env: env, Cwd: "/", User: &kata.User{UID: 65535}, NoNewPrivileges: true, Capabilities: &kata.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}},
			Root:        &kata.Root{Path: "/run/kata-containers/" + id + "/rootfs"},
			Mounts:      []*kata.Mount{{Destination: "/proc", Source: "proc", Type: "proc", Options: []string{"nosuid", "noexec", "nodev"}}},
			Annotations: map[string]string{"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri.sandbox-id": id},
			Linux: &kata.Linux{
				CgroupsPath: "/kubepods/burstable/pod1/" + id,
				Namespaces:  []*kata.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "pid"}},
				Resources:   &kata.LinuxResources{CPU: &kata.LinuxCPU{Shares: 2}},
			},
		},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

// bySecond is the same request from runtime-rs under cri-o: its annotations and cgroup form, hooks present and empty.
func bySecond(m *kata.CreateContainerRequest) {
	m.OCI.Annotations = map[string]string{"io.kubernetes.cri-o.ContainerType": "sandbox"}
	m.OCI.Linux.CgroupsPath = "kubepods-burstable-pod1.slice:crio:" + m.ContainerId
	m.OCI.Linux.Namespaces = append(m.OCI.Linux.Namespaces, &kata.LinuxNamespace{Type: "cgroup"})
	m.OCI.Hooks = &kata.Hooks{}
}

func iface(name, kind, address string) *kata.UpdateInterfaceRequest {
	return &kata.UpdateInterfaceRequest{Interface: &kata.Interface{
		Device: name, Name: name, Type: kind, Mtu: 1500, HwAddr: "02:42:ac:11:00:02",
		IPAddresses: []*kata.IPAddress{{Address: address, Mask: "24"}},
	}}
}

func file(path string, mode uint32) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{Path: path, FileMode: mode, DirMode: 0o755, FileSize: 3, Data: []byte("abc")}
}

func link(path, target string) *kata.CopyFileRequest {
	return &kata.CopyFileRequest{Path: path, FileMode: modeSymlink | 0o777, FileSize: int64(len(target)), Data: []byte(target)}
}

func exec(id string, args ...string) *kata.ExecProcessRequest {
	return &kata.ExecProcessRequest{ContainerId: id, ExecId: "e1", Process: &kata.Process{Args: args, Capabilities: &kata.LinuxCapabilities{}}}
}

// TestTenantCorpus replays a pod's life against a policy in the manner of generated ones, in both Rego versions.
func TestTenantCorpus(t *testing.T) {
	app := []string{"/app", "--serve"}
	path := []string{"PATH=/bin"}
	rows := []row{
		{"start before create", &kata.StartContainerRequest{ContainerId: "a"}, deny},
		{"hooks directory", &kata.CreateSandboxRequest{Hostname: "p", GuestHookPath: "/hooks"}, deny},
		{"kernel module", &kata.CreateSandboxRequest{Hostname: "p", KernelModules: []*kata.KernelModule{{Name: "x"}}}, deny},
		{"sandbox", &kata.CreateSandboxRequest{Hostname: "p", SandboxId: "s"}, ""},
		{"second sandbox", &kata.CreateSandboxRequest{Hostname: "p", SandboxId: "s"}, deny},
		{"other argv", create("a", []string{"/bin/sh"}, path), deny},
		{"argv with more", create("a", []string{"/pause", "x"}, path), deny},
		{"other environment", create("a", []string{"/pause"}, []string{"LD_PRELOAD=/x"}), deny},
		{"user by name", create("a", []string{"/pause"}, path, func(m *kata.CreateContainerRequest) { m.StringUser = &kata.StringUser{} }), deny},
		{"hooks, even empty", create("a", []string{"/pause"}, path, bySecond), deny},
		{"gid mapping", create("a", []string{"/pause"}, path, func(m *kata.CreateContainerRequest) {
			m.OCI.Linux.GIDMappings = []*kata.LinuxIDMapping{{}}
		}), deny},
		{"other mount", create("a", []string{"/pause"}, path, func(m *kata.CreateContainerRequest) { m.OCI.Mounts[0].Destination = "/etc" }), deny},
		{"mount of another type", create("a", []string{"/pause"}, path, func(m *kata.CreateContainerRequest) { m.OCI.Mounts[0].Type = "bind" }), deny},
		{"no OCI part", &kata.CreateContainerRequest{ContainerId: "a"}, deny},
		{"pause", create("a", []string{"/pause"}, path), ""},
		{"second pause", create("b", []string{"/pause"}, path), deny},
		{"app", create("c", app, []string{"MODE=x", "KUBERNETES_PORT=tcp://10.0.0.1:443", "HOSTNAME=p-1"}), ""},
		{"second app", create("d", app, path), deny},
		{"start pause", &kata.StartContainerRequest{ContainerId: "a"}, ""},
		{"start app", &kata.StartContainerRequest{ContainerId: "c"}, ""},
		{"start by a key that is no container", &kata.StartContainerRequest{ContainerId: "sandbox_name"}, deny},
		{"probe", exec("c", "/app", "--probe"), ""},
		{"probe in the other container", exec("a", "/app", "--probe"), deny},
		{"shell", exec("c", "sh"), deny},
		{"probe with capabilities", &kata.ExecProcessRequest{ContainerId: "c", Process: &kata.Process{
			Args: []string{"/app", "--probe"}, Capabilities: &kata.LinuxCapabilities{Effective: []string{"CAP_SYS_ADMIN"}}}}, deny},
		{"exec without process", &kata.ExecProcessRequest{ContainerId: "c"}, deny},
		{"bytes are numbers", &kata.WriteStreamRequest{ContainerId: "c", Data: []byte("hi")}, ""},
		{"other bytes", &kata.WriteStreamRequest{ContainerId: "c", Data: []byte("ho")}, deny},
		{"missing data key", &kata.CloseStdinRequest{ContainerId: "c"}, deny},
		{"read", &kata.ReadStreamRequest{ContainerId: "c", Len: 32 << 10}, ""},
		{"signal", &kata.SignalProcessRequest{ContainerId: "c", Signal: 15}, ""},
		{"no rule", &kata.PauseContainerRequest{ContainerId: "c"}, silent},
		{"set policy", &kata.SetPolicyRequest{Policy: "package agent_policy"}, deny},
		{"file", file(shared+"hosts", modeRegular|0o644), ""},
		{"file by runtime-rs", &kata.CopyFileRequest{Path: shared + "hosts", FileMode: modeRegular | 0o644, FileSize: 1, Data: []byte("x")}, ""},
		{"directory", &kata.CopyFileRequest{Path: shared + "sa", FileMode: modeDirectory | 0o755, DirMode: 0o755}, ""},
		{"parent", file(shared+"x/../../y", modeRegular), deny},
		{"type unknown", file(shared+"x", 0o644), deny},
		{"socket", file(shared+"x", 0o140000), deny},
		{"link", link(shared+"sa/token", "..data/token"), ""},
		{"link elsewhere", link(shared+"sa/token", "/etc/shadow"), deny},
		{"interface", iface("eth0", "veth", "10.0.0.2"), ""},
		{"interface of another type", iface("eth0", "tap", "10.0.0.2"), deny},
		{"no interface", &kata.UpdateInterfaceRequest{}, deny},
		{"largest integers", &kata.UpdateInterfaceRequest{Interface: &kata.Interface{Type: "veth", Mtu: 1<<64 - 1, IPAddresses: []*kata.IPAddress{{}}}}, ""},
		{"remove app", &kata.RemoveContainerRequest{ContainerId: "c"}, ""},
		{"remove app again", &kata.RemoveContainerRequest{ContainerId: "c"}, deny},
		{"start removed", &kata.StartContainerRequest{ContainerId: "c"}, deny},
		{"app after removal", create("e", app, path), ""},
		{"end", &kata.DestroySandboxRequest{}, ""},
	}
	for _, name := range []string{"tenant.rego", "tenant_v0.rego"} {
		t.Run(name, func(t *testing.T) { replayRows(t, loadFile(t, name), rows) })
	}
	t.Logf("%d requests in two versions", len(rows))
}

// TestContainerIDIsOneStep: the state's path is made of the host's id, which must not reach beyond its key.
func TestContainerIDIsOneStep(t *testing.T) {
	p := loadFile(t, "tenant.rego")
	for _, id := range []string{"a/b", "../policy_data", "/", "x/"} {
		err := p.Allow(t.Context(), "CreateContainerRequest", create(id, []string{"/pause"}, nil))
		if code := codeOf(t, err); code != "policy-error" {
			t.Errorf("id %q: got %q", id, code)
		}
	}
	if len(p.state) != 0 {
		t.Errorf("state is %v", p.state)
	}
}
