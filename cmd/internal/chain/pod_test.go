// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

// podPolicy is a tenant's: one command line, and one probe.
const podPolicy = `package agent_policy

import rego.v1

default CreateSandboxRequest := true
default GuestDetailsRequest := true
default StartContainerRequest := true
default ReadStreamRequest := true
default WaitProcessRequest := true
default SignalProcessRequest := true
default RemoveContainerRequest := true
default DestroySandboxRequest := true
default GetOOMEventRequest := true
default CopyFileRequest := true
default CreateContainerRequest := false

CreateContainerRequest if input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"

CreateContainerRequest if input.OCI.Process.Args == ["/bin/sh", "-c", "echo hello from the pod; read x"]

default ExecProcessRequest := false

ExecProcessRequest if input.process.Args == ["/bin/busybox", "true"]
`

// agentGuest is a running agent of a guest that was launched with some initdata.
type agentGuest struct {
	kata.TTRPCAgentServiceService
	pid   int // of unshare, or of what it has become
	ended chan error
}

// agent starts the kata agent as the host's shim finds it, in a mount namespace
// with a /run of its own.
func (w *world) agent(t *testing.T, d fixture.InitData) *agentGuest {
	t.Helper()
	return w.agentUnder(t, d, []string{"--mount", "--propagation", "private"}, `mount -t tmpfs run /run && exec "$0" "$@"`)
}

// agentUnder starts it by a script in namespaces of its own.
func (w *world) agentUnder(t *testing.T, d fixture.InitData, namespaces []string, script string) *agentGuest {
	t.Helper()
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	config, socket := w.path("casemate.toml"), w.path("agent.sock")
	if err := fixture.GuestConfig(config, w.chip, d.File, w.registry.Addr, "/run/casemate/image"); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", slices.Concat(namespaces, []string{
		"sh", "-c", script, program("casemate-testsnp"), "agent", "--config", config, "--listen", "unix://" + socket,
	})...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	g := &agentGuest{pid: cmd.Process.Pid, ended: make(chan error, 1)}
	go func() { g.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		select {
		case <-g.ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			t.Error("the agent did not end")
		}
		if t.Failed() {
			t.Logf("agent: %s", log.String())
		}
	})
	g.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(dialAgent(t, socket))
	return g
}

// dialAgent waits for the socket and for the first answer of the health check.
func dialAgent(t *testing.T, socket string) *ttrpc.Client {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			client := ttrpc.NewClient(conn)
			t.Cleanup(func() { _ = client.Close() })
			if _, err := kata.NewTTRPCHealthClient(client).Check(within(t), &kata.CheckRequest{}); err != nil {
				t.Fatalf("health: %v", err)
			}
			return client
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent does not listen: %v", err)
		}
	}
}

// sandbox creates the sandbox as soon as the door is open, or returns the refusal.
func (g *agentGuest) sandbox(t *testing.T) error {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		_, err := g.CreateSandbox(within(t), &kata.CreateSandboxRequest{SandboxId: "sandbox0", Hostname: "pod"})
		if err == nil || !strings.Contains(err.Error(), "door-closed") || time.Now().After(deadline) {
			return err
		}
	}
}

// TestPod is a kata pod with an encrypted, signed image of a real registry, whose
// key keybroker releases for this guest's initdata, the tenant's policy in it.
func TestPod(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-pod.toml", "pod", w.policy, podPolicy)
	w.register(t, "pod", d.Digest)
	image := w.image(t, "pod")
	g := w.agent(t, d)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	start := func(r *kata.CreateContainerRequest) {
		t.Helper()
		if _, err := g.CreateContainer(within(t), r); err != nil {
			t.Fatal(err)
		}
		if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
			t.Fatal(err)
		}
	}
	start(podContainer("sandbox0", "pause", "/pause"))
	start(podContainer("app", image, "/bin/sh", "-c", "echo hello from the pod; read x"))
	out, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", Len: 1000})
	if err != nil || string(out.Data) != "hello from the pod\n" {
		t.Errorf("output: got %q, %v", out.GetData(), err)
	}
	exec := func(args ...string) error {
		return second(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: "app", ExecId: "probe", Process: &kata.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/"}}))
	}
	if err := exec("/bin/busybox", "true"); err != nil {
		t.Errorf("the probe that the policy names: %v", err)
	}
	if r, err := g.WaitProcess(within(t), &kata.WaitProcessRequest{ContainerId: "app", ExecId: "probe"}); err != nil || r.Status != 0 {
		t.Errorf("probe: %v, %v", r, err)
	}
	wantRefused(t, "one argument more", exec("/bin/busybox", "true", "-x"), "ExecProcessRequest is blocked by policy")
	wantRefused(t, "another command", second(g.CreateContainer(within(t), podContainer("other", image, "/bin/sh", "-c", "id"))), "CreateContainerRequest is blocked by policy")
	wantRefused(t, "exec", second(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: "app", ExecId: "e", Process: &kata.Process{Args: []string{"sh"}}})), "ExecProcessRequest is blocked by policy")
	wantRefused(t, "copy outside", second(g.CopyFile(within(t), &kata.CopyFileRequest{Path: "/etc/passwd", FileMode: unix.S_IFREG | 0o644})), "CopyFileRequest is blocked by policy")
	wantRefused(t, "another policy", second(g.SetPolicy(within(t), &kata.SetPolicyRequest{Policy: "package agent_policy"})), "SetPolicyRequest is blocked by policy")
	waiting := make(chan error, 1)
	go func() { waiting <- second(g.GetOOMEvent(within(t), &kata.GetOOMEventRequest{})) }()
	time.Sleep(50 * time.Millisecond)
	destroyed := time.Now()
	if _, err := g.DestroySandbox(within(t), &kata.DestroySandboxRequest{}); err != nil {
		t.Error(err)
	}
	if err := <-waiting; status.Code(err) != codes.Unavailable {
		t.Errorf("the request for an event ended with %v, want %v", err, codes.Unavailable)
	}
	select {
	case err := <-g.ended:
		if err != nil {
			t.Errorf("the agent ended with %v", err)
		}
		if took := time.Since(destroyed); took > 2*time.Second {
			t.Errorf("the agent took %v to end", took)
		}
		g.ended <- err
	case <-time.After(30 * time.Second):
		t.Error("the agent goes on after its sandbox")
	}
}

// TestPodOfPodFile is the pod of a Kubernetes file under the policy that
// casemate-build writes from it and from the encrypted image's config, without its key.
func TestPodOfPodFile(t *testing.T) {
	w := newWorld(t)
	w.register(t, "pod", "sha256:"+strings.Repeat("11", 32))
	image := w.image(t, "pod")
	file := w.path("pod.yaml")
	if err := os.WriteFile(file, []byte(`
kind: Pod
spec:
  containers:
  - name: app
    image: `+image+`
    args: ["echo hello from $(WHO); read x"]
    env: [{name: WHO, value: the file}]
    readinessProbe: {exec: {command: [/bin/busybox, "true"]}}
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	policy := w.must(t, "casemate-build", "agent-policy", file, "--insecure-registry", w.registry.Addr)
	d := w.initdata(t, "initdata-file.toml", "pod", w.policy, string(policy))
	w.register(t, "pod", d.Digest)
	g := w.agent(t, d)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	container := func(args ...string) *kata.CreateContainerRequest {
		r := podContainer("app", image, args...)
		r.OCI.Process.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "WHO=the file", "KUBERNETES_SERVICE_HOST=10.0.0.1"}
		return r
	}
	if _, err := g.CreateContainer(within(t), podContainer("sandbox0", "pause", "/pause")); err != nil {
		t.Fatal(err)
	}
	wantRefused(t, "another command", second(g.CreateContainer(within(t), container("/bin/sh", "-c", "id"))), "CreateContainerRequest is blocked by policy")
	if _, err := g.CreateContainer(within(t), container("/bin/sh", "-c", "echo hello from the file; read x")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err != nil {
		t.Fatal(err)
	}
	out, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: "app", Len: 1000})
	if err != nil || string(out.Data) != "hello from the file\n" {
		t.Errorf("output: got %q, %v", out.GetData(), err)
	}
	env := container().OCI.Process.Env
	probe := func(env []string, args ...string) error {
		return second(g.ExecProcess(within(t), &kata.ExecProcessRequest{ContainerId: "app", ExecId: "probe", Process: &kata.Process{Args: args, User: &kata.User{}, Env: env, Cwd: "/"}}))
	}
	if err := probe(env, "/bin/busybox", "true"); err != nil {
		t.Errorf("the probe of the file: %v", err)
	}
	wantRefused(t, "another probe", probe(env, "/bin/busybox", "id"), "ExecProcessRequest is blocked by policy")
	wantRefused(t, "a probe that loads something", probe(append(env, "LD_PRELOAD=/x"), "/bin/busybox", "true"), "ExecProcessRequest is blocked by policy")
	if _, err := g.DestroySandbox(within(t), &kata.DestroySandboxRequest{}); err != nil {
		t.Error(err)
	}
}

// TestPodOfAnotherGuest: a guest whose initdata keybroker does not know opens its
// door by its own policy and gets no key: the image stays shut.
func TestPodOfAnotherGuest(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-pod.toml", "pod", w.policy, podPolicy)
	w.register(t, "pod", d.Digest)
	image := w.image(t, "pod")
	loose := w.initdata(t, "initdata-loose.toml", "pod", w.policy, strings.Replace(podPolicy, "default CreateContainerRequest := false", "default CreateContainerRequest := true", 1))
	g := w.agent(t, loose)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	err := second(g.CreateContainer(within(t), podContainer("app", image, "/bin/sh", "-c", "id")))
	if s := status.Convert(err); s.Code() == codes.OK || !strings.Contains(s.Message(), "Failed to pull image") {
		t.Errorf("got %v %q, want a failed pull", s.Code(), s.Message())
	}
}

// TestPodBuiltIn: a tenant that brings no policy gets what the signed image says and
// nothing that the host makes of it: the theft of security.md 15 by a shell.
func TestPodBuiltIn(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-plain.toml", "plain", w.policy)
	w.register(t, "plain", d.Digest)
	image := w.image(t, "plain")
	g := w.agent(t, d)
	if err := g.sandbox(t); err != nil {
		t.Fatal(err)
	}
	if _, err := g.CreateContainer(within(t), podContainer("sandbox0", "pause", "/pause")); err != nil {
		t.Fatal(err)
	}
	// The image's entry point, which for want of a command ends with status 2.
	const path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	as := podContainer("app", image, "/bin/sh", "-c")
	as.OCI.Process.Env = []string{path, "KUBERNETES_SERVICE_HOST=10.0.0.1"}
	if _, err := g.CreateContainer(within(t), as); err != nil {
		t.Fatal(err)
	}
	if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: "app"}); err != nil {
		t.Fatal(err)
	}
	if r, err := g.WaitProcess(within(t), &kata.WaitProcessRequest{ContainerId: "app"}); err != nil || r.Status != 2 {
		t.Errorf("wait: %v, %v", r, err)
	}
	for what, change := range map[string]func(*kata.CreateContainerRequest){
		"theft by a shell": func(r *kata.CreateContainerRequest) {
			r.OCI.Process.Args = []string{"/bin/sh", "-c", "fetch 127.0.0.1:8006/cdh/resource/plain/image/kek"}
		},
		"preloaded library": func(r *kata.CreateContainerRequest) {
			r.OCI.Process.Env = append(r.OCI.Process.Env, "LD_PRELOAD=/x.so")
		},
		"another user":      func(r *kata.CreateContainerRequest) { r.OCI.Process.User.UID = 1 },
		"another directory": func(r *kata.CreateContainerRequest) { r.OCI.Process.Cwd = "/bin" },
		"host's directory": func(r *kata.CreateContainerRequest) {
			r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/bin", Source: "/run/kata-containers/shared/containers/x", Type: "bind", Options: []string{"rbind"}})
		},
		"more capabilities":  func(r *kata.CreateContainerRequest) { r.OCI.Process.Capabilities.Effective = []string{"CAP_SYS_ADMIN"} },
		"input to a program": nil,
	} {
		if change == nil {
			wantRefused(t, what, second(g.WriteStdin(within(t), &kata.WriteStreamRequest{ContainerId: "app", Data: []byte("x")})), "WriteStreamRequest is blocked by policy")
			continue
		}
		r := podContainer("other", image, "/bin/sh", "-c")
		r.OCI.Process.Env = []string{path}
		change(r)
		wantRefused(t, what, second(g.CreateContainer(within(t), r)), "")
	}
}
