// SPDX-License-Identifier: Apache-2.0

package pod_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/hotplug"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/imagepull"
)

// timeLimit is far more than any single step takes.
const timeLimit = time.Minute

// images are trees with busybox, by reference.
type images struct {
	t       testing.TB
	busybox []byte
	mu      sync.Mutex
	opened  int
	wait    chan struct{}           // a pull ends when it is closed; nil is at once
	begun   chan struct{}           // gets one for each pull that waits, where there is room
	extra   func(root string) error // what an image has besides
}

func (i *images) Open(ctx context.Context, reference, dir string) (*pod.Image, error) {
	if i.wait != nil {
		select {
		case i.begun <- struct{}{}:
		default:
		}
		select {
		case <-i.wait:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if strings.Contains(reference, "denied") {
		return nil, &pod.Failure{Code: codes.PermissionDenied, Phrase: "Image policy rejected: Denied by policy", Err: errors.New("canary-secret")}
	}
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "data"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "bin/busybox"), i.busybox, 0o755); err != nil {
		return nil, err
	}
	for _, name := range []string{"sh", "cat", "echo", "sleep", "true", "false", "hostname", "head", "dd", "id", "kill", "tail", "yes", "stty", "readlink", "grep", "ls", "mkdir"} {
		if err := os.Symlink("busybox", filepath.Join(root, "bin", name)); err != nil {
			return nil, err
		}
	}
	if i.extra != nil {
		if err := i.extra(root); err != nil {
			return nil, err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.opened++
	return &pod.Image{Digest: "sha256:00", Process: specs.Process{Args: []string{"sh"}}, User: func(spec string) (specs.User, error) { return imagepull.ResolveUser(root, spec) }, Close: func() error { return os.RemoveAll(dir) }}, nil
}

type allowAll struct{}

func (allowAll) Allow(context.Context, string, proto.Message) error { return nil }

// guest is a running agent with a client on its socket.
type guest struct {
	kata.TTRPCAgentServiceService
	dir        string
	socket     string
	images     *images
	starts     []pod.Start // guarded by images.mu
	unrecorded bool        // a start cannot be recorded
	noLogs     atomic.Bool
	door       *agent.Door
	health     kata.TTRPCHealthService
	service    *pod.Service
	mounted    []string      // before the guest began
	down       chan struct{} // closed by DestroySandbox

	client   *ttrpc.Client
	handlers map[string]bool
}

func startGuest(t *testing.T) *guest {
	t.Helper()
	return startJudgedGuest(t, allowAll{}, nil, nil)
}

// startJudgedGuest starts one behind a policy, with a closed door for nil; other is nil or images of the test's own, admit what pod.Config has.
func startJudgedGuest(t *testing.T, policy agent.Policy, other pod.Images, admit func(image, requested *specs.Process) error, change ...func(*pod.Config)) *guest {
	t.Helper()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return buildGuest(t, policy, other, admit, log, change...)
}

// startLoggedGuest starts one that writes all it has to say to a buffer.
func startLoggedGuest(t *testing.T, to io.Writer) *guest {
	t.Helper()
	return buildGuest(t, allowAll{}, nil, nil, slog.New(slog.NewTextHandler(to, &slog.HandlerOptions{Level: slog.LevelDebug})))
}

func buildGuest(t *testing.T, policy agent.Policy, other pod.Images, admit func(image, requested *specs.Process) error, log *slog.Logger, change ...func(*pod.Config)) *guest {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("creating containers needs root")
	}
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("no busybox for the containers' root file system: %v", err)
	}
	program, err := filepath.Abs("../../bin/casemate")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		t.Skipf("no static program for the pause container: %v; run make root", err)
	}
	g := &guest{dir: "/run/kata-containers", images: &images{t: t, busybox: busybox}, door: new(agent.Door), down: make(chan struct{})}
	if err := os.MkdirAll(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	g.mounted = mountPoints(t)
	if err := unix.Mount("pod", g.dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(g.dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	runtime, err := container.New(container.Config{Root: filepath.Join(t.TempDir(), "state"), Cgroup: "casemate-pod-" + strconv.Itoa(os.Getpid()), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	if other == nil {
		other = g.images
	}
	config := pod.Config{
		Dir: g.dir, Runtime: runtime, Images: other, Pause: program, Version: "4.1.0", Log: log, Begun: agent.Begun, Admit: admit, NoLogs: g.noLogs.Load, Starting: g.announce, Sized: sizedInMemory, Encrypted: encryptedInMemory, Devices: namedDisks{},
		Shutdown: func() { once.Do(func() { close(g.down) }) },
	}
	for _, f := range change {
		f(&config)
	}
	service, err := pod.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
		defer cancel()
		if err := errors.Join(service.Close(ctx), runtime.Close(ctx)); err != nil {
			t.Error(err)
		}
	})
	g.connect(t, service, policy, log)
	return g
}

// sizedInMemory stands in for the guest's scratch, which has 1 GiB.
func sizedInMemory(size int64, point string) error {
	if size > 1<<30 {
		return fmt.Errorf("making a file system: %w", unix.ENOSPC)
	}
	return unix.Mount("sized", point, "tmpfs", 0, fmt.Sprintf("size=%d", size))
}

// namedDisks are wherever a request says, if a guest could have a disk there.
type namedDisks struct{}

func (namedDisks) Check(driver, address string) error { return hotplug.Check(driver, address) }

func (namedDisks) Wait(_ context.Context, _, address string) (string, error) { return address, nil }

func (namedDisks) Bind(context.Context, []string) (specs.LinuxDevice, error) {
	return specs.LinuxDevice{}, hotplug.ErrAbsent
}

// encryptedInMemory stands in for an encrypted disk of 1 MiB.
func encryptedInMemory(_ context.Context, node, point string) (func() error, error) {
	if node != "/dev/vdz" {
		return nil, errors.New("another disk: " + node)
	}
	if err := unix.Mount("disk", point, "tmpfs", 0, "size=1048576"); err != nil {
		return nil, err
	}
	return func() error { return unix.Unmount(point, 0) }, nil
}

func (g *guest) announce(s pod.Start) error {
	g.images.mu.Lock()
	defer g.images.mu.Unlock()
	if g.unrecorded {
		return errors.New(canary)
	}
	g.starts = append(g.starts, s)
	return nil
}

func (g *guest) connect(t *testing.T, service *pod.Service, policy agent.Policy, log *slog.Logger) {
	t.Helper()
	server, err := agent.NewServer(agent.Config{Version: "1", Door: g.door, Log: log, Handlers: service.Handlers()})
	if err != nil {
		t.Fatal(err)
	}
	g.door.Open(policy)
	address, err := agent.ParseAddress("unix://" + filepath.Join(t.TempDir(), "agent.sock"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := address.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	conn, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g.socket = l.Addr().String()
	client := ttrpc.NewClient(conn, ttrpc.WithUnaryClientInterceptor(count))
	t.Cleanup(func() {
		_ = client.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	g.health, g.service = kata.NewTTRPCHealthClient(client), service
	g.client, g.handlers = client, map[string]bool{}
	for name := range service.Handlers() {
		g.handlers[name] = true
	}
	g.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(client)
}

// calls counts what the tests of this process have asked for, by method and answer.
var calls = struct {
	sync.Mutex
	done, failed map[string]int
}{done: map[string]int{}, failed: map[string]int{}}

func count(ctx context.Context, req *ttrpc.Request, resp *ttrpc.Response, info *ttrpc.UnaryClientInfo, invoke ttrpc.Invoker) error {
	err := invoke(ctx, req, resp)
	calls.Lock()
	defer calls.Unlock()
	if err == nil && resp.GetStatus().GetCode() != 0 {
		err = status.ErrorProto(resp.GetStatus())
	}
	if err != nil {
		calls.failed[req.Method]++
	} else {
		calls.done[req.Method]++
	}
	return err
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeLimit)
	t.Cleanup(cancel)
	return ctx
}

func wantCode(t testing.TB, what string, err error, code codes.Code, text string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code || !strings.Contains(s.Message(), text) {
		t.Errorf("%s: got %v %q, want %v with %q", what, s.Code(), s.Message(), code, text)
	}
}

// wantLate takes the deadline's end from whichever side noticed it first.
func wantLate(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, context.DeadlineExceeded) && status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
	}
}

const (
	sandboxID = "sandbox0"
	shared    = "/run/kata-containers/shared/containers/"
)

func (g *guest) sandbox(t testing.TB, change ...func(*kata.CreateSandboxRequest)) {
	t.Helper()
	req := &kata.CreateSandboxRequest{
		SandboxId: sandboxID, Hostname: "pod-host",
		Storages: []*kata.Storage{{
			Driver: "ephemeral", Source: "shm", Fstype: "tmpfs", MountPoint: g.dir + "/sandbox/shm",
			Options: []string{"noexec", "nosuid", "nodev", "mode=1777", "size=1048576"},
		}},
	}
	for _, f := range change {
		f(req)
	}
	if _, err := g.CreateSandbox(within(t), req); err != nil {
		t.Fatal(err)
	}
}

// request is a container as a CoCo runtime asks for it.
func request(id string, args ...string) *kata.CreateContainerRequest {
	return &kata.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		Storages: []*kata.Storage{{
			Driver: "image_guest_pull", DriverOptions: []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"container"}}`},
			Source: "registry.example/app:1", Fstype: "overlay", MountPoint: "/run/kata-containers/" + id + "/rootfs",
		}},
		OCI: &kata.Spec{
			Version:  "1.1.0",
			Process:  &kata.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", User: &kata.User{}, Capabilities: &kata.LinuxCapabilities{}},
			Root:     &kata.Root{Path: "/run/kata-containers/shared/containers/" + id + "/rootfs"},
			Hostname: "host-says",
			Mounts: []*kata.Mount{
				{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
				{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
				{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
				{Destination: "/dev/shm", Type: "bind", Source: "/run/kata-containers/sandbox/shm", Options: []string{"rbind"}},
				{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			},
			Linux: &kata.Linux{
				Namespaces: []*kata.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "network", Path: "/var/run/netns/host"}},
				Resources:  &kata.LinuxResources{Memory: &kata.LinuxMemory{}, CPU: &kata.LinuxCPU{}},
			},
		},
	}
}

func pauseRequest(id string) *kata.CreateContainerRequest {
	r := request(id, "whatever")
	r.Storages[0].Source = "pause"
	r.Storages[0].DriverOptions = []string{`image_guest_pull={"metadata":{"io.kubernetes.cri.container-type":"sandbox"}}`}
	return r
}

// start creates and starts a container.
func (g *guest) start(t testing.TB, r *kata.CreateContainerRequest) {
	t.Helper()
	if _, err := g.CreateContainer(within(t), r); err != nil {
		t.Fatalf("creating %s: %v", r.ContainerId, err)
	}
	if _, err := g.StartContainer(within(t), &kata.StartContainerRequest{ContainerId: r.ContainerId}); err != nil {
		t.Fatalf("starting %s: %v", r.ContainerId, err)
	}
}

// output reads a stream to its end.
func (g *guest) output(t testing.TB, id string) string {
	t.Helper()
	var all strings.Builder
	for {
		r, err := g.ReadStdout(within(t), &kata.ReadStreamRequest{ContainerId: id, ExecId: id, Len: 32 << 10})
		if err != nil {
			t.Fatalf("reading output of %s: %v", id, err)
		}
		if len(r.Data) == 0 {
			return all.String()
		}
		all.Write(r.Data)
	}
}

func (g *guest) wait(t testing.TB, id, execID string) int32 {
	t.Helper()
	r, err := g.WaitProcess(within(t), &kata.WaitProcessRequest{ContainerId: id, ExecId: execID})
	if err != nil {
		t.Fatalf("waiting for %s: %v", id, err)
	}
	return r.Status
}

func (g *guest) remove(t testing.TB, id string) {
	t.Helper()
	if _, err := g.RemoveContainer(within(t), &kata.RemoveContainerRequest{ContainerId: id}); err != nil {
		t.Errorf("removing %s: %v", id, err)
	}
}

// method finds the RPC that takes a request. Of the two that read, standard output.
func method(t *testing.T, request string) protoreflect.MethodDescriptor {
	t.Helper()
	methods := kata.File_agent_api_kata_agent_proto.Services().ByName("AgentService").Methods()
	if request == "ReadStreamRequest" {
		return methods.ByName("ReadStdout")
	}
	for i := range methods.Len() {
		if string(methods.Get(i).Input().Name()) == request {
			return methods.Get(i)
		}
	}
	t.Fatalf("no method takes %s", request)
	return nil
}

// send calls the method that takes msg.
func (g *guest) send(t *testing.T, msg proto.Message, limit time.Duration) error {
	t.Helper()
	m := method(t, string(msg.ProtoReflect().Descriptor().Name()))
	kind, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	return g.client.Call(ctx, "grpc.AgentService", string(m.Name()), msg, kind.New().Interface())
}

func mountPoints(t testing.TB) []string {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		out = append(out, strings.Fields(line)[1])
	}
	return out
}

func errOf[T any](_ T, err error) error { return err }
