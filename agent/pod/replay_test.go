// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"context"
	"errors"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/agent/policy/replay"
)

// shopImages are the images of package replay's pod.
type shopImages struct{ busybox []byte }

const shopProgram = "#!/bin/sh\ncase $1 in --check|--stop) exit 0;; esac\necho serving\ntrap 'exit 0' TERM\nwhile :; do sleep 1; done\n"

func (i shopImages) Open(_ context.Context, reference, dir string) (*pod.Image, error) {
	root := filepath.Join(dir, "rootfs")
	for _, d := range []string{"bin", "etc", "proc", "sys", "dev", "data", "srv"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return nil, err
		}
	}
	err := os.WriteFile(filepath.Join(root, "bin/busybox"), i.busybox, 0o755)
	for _, name := range []string{"sh", "sleep", "cat"} {
		err = errors.Join(err, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	for _, name := range []string{"app", "plain"} {
		err = errors.Join(err, os.WriteFile(filepath.Join(root, name), []byte(shopProgram), 0o755))
	}
	out := &pod.Image{Digest: "sha256:00", Close: func() error { return os.RemoveAll(dir) }}
	for _, img := range replay.Images() {
		if img.Reference == reference {
			out.Process = specs.Process{
				Args: slices.Concat(img.Entrypoint, img.Cmd), Env: img.Env, Cwd: path.Join("/", img.WorkingDir), User: specs.User{UID: img.UID, GID: img.GID},
			}
		}
	}
	return out, err
}

// TestRootReplay has the pod of package replay live in a real agent, behind a policy of the tenant's, as each of the
// runtimes under each of the engines drives it; and again with a host that wants more.
func TestRootReplay(t *testing.T) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("no busybox for the containers' root file system: %v", err)
	}
	text, err := os.ReadFile("../policy/testdata/shop.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range replay.Stacks() {
		for name, steps := range map[string][]replay.Step{"life": s.Life(), "attacks": s.Attacks()} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				p, err := policy.Load(text)
				if err != nil {
					t.Fatal(err)
				}
				makeNIC(t, []byte{2, 0, 0xca, 0xfe, 0, 5})
				g := startJudgedGuest(t, p, shopImages{busybox}, nil)
				for _, step := range steps {
					raiseScore(step.Msg)
					g.replay(t, step, step.Tenant)
				}
				if name == "life" && strings.HasPrefix(s.String(), string(replay.GoRuntime)) {
					<-g.down
				}
			})
		}
	}
}

// raiseScore leaves the engine's score out of a request where even root may not lower one, as inside of a container.
func raiseScore(m proto.Message) {
	c, ok := m.(*kata.CreateContainerRequest)
	if !ok || c.GetOCI().GetProcess().GetOOMScoreAdj() >= 0 {
		return
	}
	const file = "/proc/thread-self/oom_score_adj"
	before, err := os.ReadFile(file)
	if err == nil && os.WriteFile(file, []byte("-998"), 0) == nil {
		_ = os.WriteFile(file, before, 0)
		return
	}
	c.OCI.Process.OOMScoreAdj = 0
}

// TestRootReplayBuiltIn is the same without a policy of the tenant's: the one container that does what its image says
// runs, and what the built-in policy cannot see the comparison with the image's config refuses.
func TestRootReplayBuiltIn(t *testing.T) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("no busybox for the containers' root file system: %v", err)
	}
	for _, s := range replay.Stacks() {
		for name, steps := range map[string][]replay.Step{"life": s.Life(), "attacks": s.Attacks()} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				p, err := policy.BuiltIn(false)
				if err != nil {
					t.Fatal(err)
				}
				makeNIC(t, []byte{2, 0, 0xca, 0xfe, 0, 5})
				g := startJudgedGuest(t, p, shopImages{busybox}, pod.AsImageSays)
				absent := []string{s.ID("prepare"), s.ID("app")} // they have a volume, which needs a policy
				for _, step := range steps {
					raiseScore(step.Msg)
					_, create := step.Msg.(*kata.CreateContainerRequest)
					if of, ok := step.Msg.(interface{ GetContainerId() string }); ok && !create && slices.Contains(absent, of.GetContainerId()) {
						continue
					}
					g.replay(t, step, step.Tenant && step.BuiltIn)
				}
			})
		}
	}
}

func (g *guest) replay(t *testing.T, step replay.Step, allowed bool) {
	t.Helper()
	limit := timeLimit
	if _, ok := step.Msg.(*kata.GetOOMEventRequest); ok {
		limit = 50 * time.Millisecond // it waits for what does not come
	}
	err := g.send(t, step.Msg, limit)
	switch s := status.Convert(err); {
	case limit != timeLimit:
		wantLate(t, err)
	case allowed && err != nil:
		t.Fatalf("%s (%s): %v", step.Name, step.Request(), err)
	case !allowed && s.Code() != codes.PermissionDenied:
		t.Errorf("%s (%s): got %v", step.Name, step.Request(), err)
	case !allowed && !strings.HasPrefix(s.Message(), step.Request()+" is blocked by policy: "):
		t.Errorf("%s: got %q", step.Name, s.Message())
	}
}

// makeNIC adds an interface that is up at its other end.
func makeNIC(t *testing.T, mac []byte) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "nic0"
	attrs.HardwareAddr = mac
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "nicpeer"}); err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName("nicpeer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(peer) })
	if err := netlink.LinkSetUp(peer); err != nil {
		t.Fatal(err)
	}
}
