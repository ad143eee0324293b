// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/vmtest"
)

const (
	gateway  = "10.0.2.2" // the emulator's network, and behind it this machine's loopback
	cardMAC  = "52:54:00:c0:ff:ee"
	workload = "pod"
	greeting = "echo hello from the measured guest | tee /kept; read x"
)

// vmPolicy is the tenant's: one command line, the network as the host sets it up, and
// neither exec nor files from the host.
const vmPolicy = `package agent_policy

import rego.v1

default CreateSandboxRequest := true
default UpdateInterfaceRequest := true
default UpdateRoutesRequest := true
default StartContainerRequest := true
default ReadStreamRequest := true
default SignalProcessRequest := true
default RemoveContainerRequest := true
default DestroySandboxRequest := true
default CreateContainerRequest := false
default ExecProcessRequest := false
default CopyFileRequest := false

CreateContainerRequest if input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"

CreateContainerRequest if input.OCI.Process.Args == ["/bin/sh", "-c", "` + greeting + `"]
`

// podWorld is a world whose registry and keybroker a guest reaches through the emulator,
// with an encrypted and signed image for it.
type podWorld struct {
	*world
	image string // as the guest names it
}

func newPodWorld(t *testing.T) *podWorld {
	t.Helper()
	w := &podWorld{world: newWorld(t, "--tls-name", gateway)}
	name := w.world.image(t, workload)
	w.image = fromGuest(name)
	repository, _, _ := strings.Cut(w.image, ":1")
	w.must(t, "casemate-build", "sign", name, "--reference", repository, "--key", w.path("owner.key"), "--insecure-registry", w.registry.Addr)
	return w
}

// fromGuest is the address by which a guest reaches one on this machine's loopback.
func fromGuest(address string) string { return strings.Replace(address, "127.0.0.1", gateway, 1) }

// podInitData writes a document for the pod that names the keybroker of another world or this one.
func (w *podWorld) podInitData(t *testing.T, name string, broker *fixture.Broker, rego string) fixture.InitData {
	t.Helper()
	registry := fromGuest(w.registry.Addr)
	policy, err := fixture.SignedBy(registry, w.path("owner.pub"))
	if err != nil {
		t.Fatal(err)
	}
	d, err := fixture.WriteInitData(t.Context(), program("casemate-build"), w.path(name), fixture.InitDataOptions{
		Workload: workload, KBS: fromGuest(broker.URL), Cert: broker.Cert, Policy: policy, Rego: rego, Casemate: fmt.Sprintf("[image]\ninsecure_registries = [%q]\n", registry),
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// registerTPM registers the workload for the guest that uki is, run on tpm: the values
// come from the files and the firmware, before any such guest has started.
func (w *podWorld) registerTPM(t *testing.T, d fixture.InitData, uki string, tpm ownedTPM) {
	t.Helper()
	pcrs := string(w.must(t, "casemate-build", "measure", "tpm", "--uki", uki, "--boot", "qemu-kernel", "--bank", "sha256", "--toml"))
	text := fmt.Sprintf("id = %q\ntees = [\"tpm\"]\ninitdata = [%q]\n\n[tpm]\nattestation_keys = ['''\n%s''']\n\n%s0 = [%q]\n",
		workload, d.Digest, tpm.key, pcrs, firmwareRegister(t, tpm))
	file := w.path("tpm.toml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.must(t, "keybroker", append([]string{"register", file}, w.broker.OwnerFlags()...)...)
}

// podGuest is a running guest, and the kata API over its AF_VSOCK port.
type podGuest struct {
	kata.TTRPCAgentServiceService
	vm *vmtest.VM
}

// tpmMachine is the machine that a measured guest with a TPM runs on, with a blank disk for scratch.
func tpmMachine(t *testing.T, uki, root string, tpm ownedTPM, d fixture.InitData) vmtest.Config {
	t.Helper()
	scratch, err := vmtest.TempDisk(t.TempDir(), "scratch", scratchSize)
	if err != nil {
		t.Fatal(err)
	}
	return vmtest.Config{
		UKI: uki, TPM: tpm.state, Disks: []string{scratch}, Shared: []string{root, d.Disk}, MAC: cardMAC, MemoryMiB: 512, TimeLimit: vmLimit,
	}
}

// agentOf connects to the guest's agent as kata's shim does.
func agentOf(ctx context.Context, t *testing.T, vm *vmtest.VM) *podGuest {
	t.Helper()
	const agentPort = 1024
	conn, err := vm.Dial(ctx, agentPort)
	if err != nil {
		t.Fatal(err)
	}
	c := ttrpc.NewClient(conn)
	t.Cleanup(func() { _ = c.Close() })
	return &podGuest{kata.NewTTRPCAgentServiceClient(c), vm}
}

// bringUp makes the sandbox and sets the machine's card up.
func (g *podGuest) bringUp(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := g.CreateSandbox(ctx, &kata.CreateSandboxRequest{SandboxId: "sandbox0", Hostname: "pod"}); err != nil {
		t.Fatal(err)
	}
	_, err := g.UpdateInterface(ctx, &kata.UpdateInterfaceRequest{Interface: &kata.Interface{
		Device: "eth0", Name: "eth0", HwAddr: cardMAC, Mtu: 1500, IPAddresses: []*kata.IPAddress{{Address: "10.0.2.15", Mask: "24"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.UpdateRoutes(ctx, &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{{Gateway: gateway, Device: "eth0"}}}}); err != nil {
		t.Fatal(err)
	}
}

// create asks for the workload's container, for which the guest needs the key.
func (g *podGuest) create(ctx context.Context, image string) error {
	return second(g.CreateContainer(ctx, podContainer("app", image, "/bin/sh", "-c", greeting)))
}

// runs starts the workload and reads what it says.
func (g *podGuest) runs(ctx context.Context, t *testing.T, image string) {
	t.Helper()
	if _, err := g.CreateContainer(ctx, podContainer("sandbox0", "pause", "/pause")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.StartContainer(ctx, &kata.StartContainerRequest{ContainerId: "sandbox0"}); err != nil {
		t.Fatal(err)
	}
	if err := g.create(ctx, image); err != nil {
		t.Fatal(err)
	}
	if _, err := g.StartContainer(ctx, &kata.StartContainerRequest{ContainerId: "app"}); err != nil {
		t.Fatal(err)
	}
	out, err := g.ReadStdout(ctx, &kata.ReadStreamRequest{ContainerId: "app", Len: 1000})
	if err != nil || string(out.Data) != "hello from the measured guest\n" {
		t.Errorf("output: got %q, %v", out.GetData(), err)
	}
}

// refuses: the host gets no second process into the pod and no file, nor another policy.
func (g *podGuest) refuses(ctx context.Context, t *testing.T) {
	t.Helper()
	for what, err := range map[string]error{
		"ExecProcessRequest": second(g.ExecProcess(ctx, &kata.ExecProcessRequest{ContainerId: "app", ExecId: "e", Process: &kata.Process{Args: []string{"/bin/sh"}, Cwd: "/"}})),
		"CopyFileRequest": second(g.CopyFile(ctx, &kata.CopyFileRequest{
			Path: "/run/kata-containers/shared/containers/app-0123456789abcdef-resolv.conf", FileMode: unix.S_IFREG | 0o644,
		})),
		"SetPolicyRequest":       second(g.SetPolicy(ctx, &kata.SetPolicyRequest{Policy: "package agent_policy"})),
		"CreateContainerRequest": second(g.CreateContainer(ctx, podContainer("other", "x", "/bin/sh", "-c", "id"))),
	} {
		wantRefused(t, what, err, what+" is blocked by policy")
	}
}

// ends destroys the sandbox: the machine switches itself off.
func (g *podGuest) ends(ctx context.Context, t *testing.T) {
	t.Helper()
	if _, err := g.DestroySandbox(ctx, &kata.DestroySandboxRequest{}); err != nil {
		t.Error(err)
	}
	if err := g.vm.Wait(ctx); err != nil {
		t.Error(err)
	}
}
