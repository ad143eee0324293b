// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/ttrpc"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

const (
	readyRuns = 15
	startRuns = 50
	idleTime  = 30 * time.Second
	idleAsks  = 100

	loadedContainers = 10
)

// benchRego lets the benchmark's own pod through.
const benchRego = `package agent_policy

import rego.v1

default CreateSandboxRequest := true
default CreateContainerRequest := true
default StartContainerRequest := true
default WaitProcessRequest := true
default RemoveContainerRequest := true
default SignalProcessRequest := true
default ReadStreamRequest := true
`

// agentProcess is a running agent and its client.
type agentProcess struct {
	kata.TTRPCAgentServiceService
	cmd    *exec.Cmd
	conn   *ttrpc.Client
	socket string
}

// startAgent runs the guest's agent in a mount namespace with a /run of its own.
func startAgent(ctx context.Context, dir, config string) (*agentProcess, error) {
	p := &agentProcess{socket: filepath.Join(dir, "agent.sock")}
	_ = os.Remove(p.socket) // of the last run
	args := []string{"--mount", "--propagation", "private", "sh", "-c", `mount -t tmpfs run /run && exec "$0" "$@"`, "bin/casemate-testsnp", "agent", "--listen", "unix://" + p.socket}
	if config != "" {
		args = append(args, "--config", config)
	}
	p.cmd = exec.CommandContext(ctx, "unshare", args...)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
		conn, err := net.Dial("unix", p.socket)
		if err != nil {
			continue
		}
		p.conn = ttrpc.NewClient(conn)
		if _, err := kata.NewTTRPCHealthClient(p.conn).Check(ctx, &kata.CheckRequest{}); err != nil {
			return nil, errors.Join(err, p.stop())
		}
		p.TTRPCAgentServiceService = kata.NewTTRPCAgentServiceClient(p.conn)
		return p, nil
	}
	return nil, errors.Join(errors.New("the agent does not listen"), p.stop())
}

func (p *agentProcess) stop() error {
	if p.conn != nil {
		_ = p.conn.Close()
	}
	_ = p.cmd.Process.Signal(unix.SIGTERM)
	return p.cmd.Wait()
}

// agentReady measures from exec to the first answered health check, what starts the
// shell and mounts included.
func agentReady(ctx context.Context) ([]figure, error) {
	dir, err := os.MkdirTemp("/dev/shm", "casemate-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	var took []float64
	for range readyRuns {
		start := time.Now()
		p, err := startAgent(ctx, dir, filepath.Join(dir, "none"))
		if err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(start)))
		if err := p.stop(); err != nil {
			return nil, err
		}
	}
	value := median(took)
	return []figure{{name: "ready", unit: "ms", value: value, budget: "<=30", met: value <= 30}}, nil
}

// agentFixture is a guest whose initdata holds a policy, and an image in a layout.
type agentFixture struct {
	*guestBench
	config, image, rootfs string
}

func prepareAgent(ctx context.Context, rego string) (_ *agentFixture, err error) {
	g, err := prepareGuest(ctx)
	if err != nil {
		return nil, err
	}
	f := &agentFixture{guestBench: g, config: g.path("casemate.toml"), rootfs: g.path("rootfs")}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	if f.image, err = f.layout(); err != nil {
		return nil, err
	}
	d, err := fixture.WriteInitData(ctx, "bin/casemate-build", g.path("pod.toml"), fixture.InitDataOptions{
		Workload: benchWorkload, KBS: g.broker.URL, Cert: g.broker.Cert, Policy: `{"default":[{"type":"insecureAcceptAnything"}]}`, Rego: rego,
	})
	if err != nil {
		return nil, err
	}
	measurement := strings.Repeat(benchMeasurement, 48)
	if err := g.chip.Launch(measurement, d.HostData); err != nil {
		return nil, err
	}
	registration := g.path("registration.toml")
	if err := fixture.Registration(registration, benchWorkload, measurement, d.Digest); err != nil {
		return nil, err
	}
	if _, err := fixture.Run(ctx, "bin/keybroker", append([]string{"register", registration}, g.broker.OwnerFlags()...)...); err != nil {
		return nil, err
	}
	return f, fixture.GuestConfig(f.config, g.chip, d.File, "registry.invalid", g.path("store"))
}

// layout writes an image with busybox and unpacks the same tree for runc.
func (f *agentFixture) layout() (reference string, err error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return "", err
	}
	layer := f.path("layer.tar")
	out, err := os.Create(layer)
	if err != nil {
		return "", err
	}
	w := tar.NewWriter(out)
	for _, h := range []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "proc/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "dev/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(busybox))},
		{Name: "bin/sleep", Typeflag: tar.TypeSymlink, Linkname: "busybox"},
	} {
		err = errors.Join(err, w.WriteHeader(h))
		if h.Size > 0 && err == nil {
			_, err = w.Write(busybox)
		}
	}
	if err = errors.Join(err, w.Close(), out.Close()); err != nil {
		return "", err
	}
	if err := os.MkdirAll(f.rootfs, 0o755); err != nil {
		return "", err
	}
	if out, err := exec.Command("tar", "-xf", layer, "-C", f.rootfs).CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpacking for runc: %w: %s", err, out)
	}
	dir := f.path("layout")
	return "oci:" + dir, fixture.WriteImage(dir, fixture.Image{Layers: []string{layer}, Config: v1.Config{Cmd: []string{"/bin/sleep", "100"}}})
}

// containerStart measures CreateContainer and StartContainer, the image present,
// beside runc create and start over the same files.
func containerStart(ctx context.Context, f *agentFixture, p *agentProcess) ([]figure, error) {
	if err := writeRuncBundle(f.dir); err != nil {
		return nil, err
	}
	var ours, peers []float64
	for i := range startRuns + 1 {
		took, err := p.startOne(ctx, fmt.Sprintf("bench%d", i), f.image)
		if err != nil {
			return nil, err
		}
		peer, err := runcStart(ctx, f.dir, fmt.Sprintf("bench%d", i))
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first one pulls
			ours, peers = append(ours, milliseconds(took)), append(peers, milliseconds(peer))
		}
	}
	value, peer := median(ours), median(peers)
	return []figure{{
		name: "container-start", unit: "ms", value: value, peer: "runc", peerValue: peer, ratio: peer / value,
		budget: "ratio>=0.8,<=60", met: peer/value >= 0.8 && value <= 60,
	}}, nil
}

// inPod is a measurement with an agent of its own, whose sandbox is there.
func inPod(measure func(context.Context, *agentFixture, *agentProcess) ([]figure, error)) func(context.Context) ([]figure, error) {
	return func(ctx context.Context) ([]figure, error) {
		f, err := prepareAgent(ctx, benchRego)
		if err != nil {
			return nil, err
		}
		defer f.close()
		p, err := startAgent(ctx, f.dir, f.config)
		if err != nil {
			return nil, err
		}
		defer p.stop() //nolint:errcheck // the figures are taken
		if err := p.openPod(ctx); err != nil {
			return nil, err
		}
		return measure(ctx, f, p)
	}
}

// openPod waits for the door and makes the sandbox.
func (p *agentProcess) openPod(ctx context.Context) error {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := p.CreateSandbox(ctx, &kata.CreateSandboxRequest{SandboxId: "sandbox0"})
		if err == nil || !strings.Contains(err.Error(), "door-closed") || time.Now().After(deadline) {
			return err
		}
	}
}

// startOne measures a container from its request to its start, and removes it.
func (p *agentProcess) startOne(ctx context.Context, id, image string) (time.Duration, error) {
	start := time.Now()
	if err := p.start(ctx, id, image, "/bin/sleep", "100"); err != nil {
		return 0, err
	}
	took := time.Since(start)
	_, err := p.RemoveContainer(ctx, &kata.RemoveContainerRequest{ContainerId: id})
	return took, err
}

func (p *agentProcess) start(ctx context.Context, id, image string, args ...string) error {
	req := &kata.CreateContainerRequest{
		ContainerId: id,
		Storages:    []*kata.Storage{{Driver: "image_guest_pull", Source: image, DriverOptions: []string{`image_guest_pull={"metadata":{}}`}}},
		OCI: &kata.Spec{
			Process: &kata.Process{Args: args, Env: []string{"PATH=/bin"}, Cwd: "/", User: &kata.User{}},
			Root:    &kata.Root{Path: "rootfs"},
			Mounts:  []*kata.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}},
			Linux:   &kata.Linux{},
		},
	}
	if _, err := p.CreateContainer(ctx, req); err != nil {
		return err
	}
	_, err := p.StartContainer(ctx, &kata.StartContainerRequest{ContainerId: id})
	return err
}

// writeRuncBundle describes the same container to runc.
func writeRuncBundle(dir string) error {
	spec := specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"/bin/sleep", "100"}, Env: []string{"PATH=/bin"}, Cwd: "/"},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs"}},
		Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		},
			// What the agent hides from every container, whatever the request says.
			MaskedPaths: []string{
				"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug",
				"/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/devices/virtual/misc/tdx_guest", "/sys/devices/virtual/powercap",
				"/sys/firmware", "/sys/kernel/config", "/sys/kernel/security",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
	raw, err := json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "config.json"), raw, 0o600)
}

func runcStart(ctx context.Context, dir, id string) (time.Duration, error) {
	runc := func(args ...string) error {
		cmd := exec.CommandContext(ctx, "runc", append([]string{"--root", filepath.Join(dir, "runc")}, args...)...)
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("runc %s: %w", args[0], err)
		}
		return nil
	}
	start := time.Now()
	if err := errors.Join(runc("create", "--bundle", dir, id), runc("start", id)); err != nil {
		return 0, err
	}
	took := time.Since(start)
	return took, runc("delete", "--force", id)
}

// idleRSS measures the agent's memory with a policy of generated size, after
// decisions and half a minute of rest.
func idleRSS(ctx context.Context) ([]figure, error) {
	rego, err := generatePolicy()
	if err != nil {
		return nil, err
	}
	f, err := prepareAgent(ctx, string(rego))
	if err != nil {
		return nil, err
	}
	defer f.close()
	p, err := startAgent(ctx, f.dir, f.config)
	if err != nil {
		return nil, err
	}
	defer p.stop() //nolint:errcheck // the figures are taken
	for i := 0; i < idleAsks; {
		_, err := p.CreateContainer(ctx, benchCreate(true))
		switch {
		case err == nil:
			return nil, errors.New("the policy allowed what it denies")
		case strings.Contains(err.Error(), "door-closed"):
			time.Sleep(time.Millisecond)
		default:
			i++
		}
	}
	time.Sleep(idleTime)
	pid := p.cmd.Process.Pid // unshare and sh have become the agent
	all, own := memory(pid, "VmRSS"), memory(pid, "RssAnon")
	return []figure{
		{name: "idle-rss", unit: "MiB", value: all, budget: "<=48MiB", met: all > 0 && all <= 48},
		{name: "idle-rss-anon", unit: "MiB", value: own, budget: "<=16MiB", met: own > 0 && own <= 16},
	}, nil
}

// loadedRSS measures the agent's memory with containers that run.
func loadedRSS(ctx context.Context, f *agentFixture, p *agentProcess) ([]figure, error) {
	for i := range loadedContainers {
		if err := p.start(ctx, fmt.Sprintf("bench%d", i), f.image, "/bin/sleep", "100"); err != nil {
			return nil, err
		}
	}
	time.Sleep(idleTime)
	all, own := memory(p.cmd.Process.Pid, "VmRSS"), memory(p.cmd.Process.Pid, "RssAnon")
	return []figure{
		{name: "rss-10-containers", unit: "MiB", value: all, budget: "-", met: all > 0},
		{name: "rss-10-containers-anon", unit: "MiB", value: own, budget: "-", met: own > 0},
	}, nil
}
