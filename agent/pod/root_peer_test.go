// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/pod"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/agent/policy/replay"
)

// peerNIC is the hardware address of the corpus' interface.
var peerNIC = net.HardwareAddr{2, 0, 0xca, 0xfe, 0, 5}

// makePeer makes what another program of a peer pod's keeps: a network with an interface and a disk that is mounted.
// The guest's own network has an interface of the same address, which nobody may touch.
func makePeer(t *testing.T) (inside netns.NsHandle) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("making a network namespace needs root")
	}
	for _, dir := range []string{filepath.Dir(replay.PodNetNS), pod.CloudVolumes} {
		mountTmpfs(t, dir)
	}
	for _, dir := range []string{replay.CloudVolume, pod.CloudVolumes + "/empty"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/", pod.CloudVolumes+"/link"); err != nil {
		t.Fatal(err)
	}
	mountTmpfs(t, replay.CloudVolume)
	makeNIC(t, peerNIC)
	link, err := netlink.LinkByName("nic0")
	if err != nil {
		t.Fatal(err)
	}
	inside = makeNetNS(t, replay.PodNetNS)
	if err := netlink.LinkSetNsFd(link, int(inside)); err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr = "decoy", peerNIC
	decoy := &netlink.Veth{LinkAttrs: attrs, PeerName: "decoypeer"}
	if err := netlink.LinkAdd(decoy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(decoy) })
	return inside
}

func mountTmpfs(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("peer", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
}

// makeNetNS makes a network namespace at file.
func makeNetNS(t *testing.T, file string) netns.NsHandle {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with this goroutine
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	h, err := netns.GetFromPath(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func inPeer(c *pod.Config) { c.NetNS = func() string { return replay.PodNetNS } }

// TestRootPeerReplay has the corpus' pod live in a peer pod, with the requests as cloud-api-adaptor's forwarder passes
// them on to the agent's unix socket, under the tenant's policy and under none.
func TestRootPeerReplay(t *testing.T) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		t.Skipf("no busybox for the containers' root file system: %v", err)
	}
	text, err := os.ReadFile("../policy/testdata/shop.rego")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range replay.Stacks() {
		for name, steps := range map[string][]replay.Step{
			"life": replay.Forward(s.Life()), "on disk": replay.Forward(replay.OnDisk(s.Life())), "attacks": s.PeerAttacks(),
		} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				p, err := policy.Load(text)
				if err != nil {
					t.Fatal(err)
				}
				inside := makePeer(t)
				g := startJudgedGuest(t, p, shopImages{busybox}, nil, inPeer)
				for _, step := range steps {
					raiseScore(step.Msg)
					g.replay(t, step, step.Tenant)
				}
				checkPeerNetwork(t, inside)
				_, err = os.Stat(replay.CloudVolume + "/state")
				if (err == nil) != (name == "on disk") {
					t.Errorf("what the init container wrote is on the disk: %v", err)
				}
			})
			if name != "attacks" {
				continue
			}
			t.Run(s.String()+"/"+name+"/built-in", func(t *testing.T) {
				p, err := policy.BuiltIn(false)
				if err != nil {
					t.Fatal(err)
				}
				makePeer(t)
				g := startJudgedGuest(t, p, shopImages{busybox}, pod.AsImageSays, inPeer)
				for _, step := range steps {
					raiseScore(step.Msg)
					g.replay(t, step, step.Tenant && step.BuiltIn)
				}
			})
			t.Run(s.String()+"/"+name+"/code alone", func(t *testing.T) {
				makePeer(t)
				g := startJudgedGuest(t, allowAll{}, shopImages{busybox}, nil, inPeer)
				for _, step := range steps {
					raiseScore(step.Msg)
					if step.Name != "disk over its program" { // a policy's to say
						g.replay(t, step, step.Tenant)
					}
				}
			})
		}
	}
}

// checkPeerNetwork: the requests for the network reached the pod's and not the guest's.
func checkPeerNetwork(t *testing.T, inside netns.NsHandle) {
	t.Helper()
	h, err := netlink.NewHandleAt(inside, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	link, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatalf("in the pod's network: %v", err)
	}
	list, err := h.AddrList(link, netlink.FAMILY_V4)
	if err != nil || len(list) != 1 || list[0].IP.String() != "10.244.0.5" {
		t.Errorf("addresses in the pod's network: %v, %v", list, err)
	}
	if routes, err := h.RouteList(link, netlink.FAMILY_V4); err != nil || len(routes) < 2 {
		t.Errorf("routes in the pod's network: %v, %v", routes, err)
	}
	decoy, err := netlink.LinkByName("decoy")
	if err != nil {
		t.Fatalf("the guest's own interface: %v", err)
	}
	if list, err := netlink.AddrList(decoy, netlink.FAMILY_V4); err != nil || len(list) != 0 || decoy.Attrs().Flags&net.FlagUp != 0 {
		t.Errorf("the guest's own interface was set up: %v, %v", list, err)
	}
}

// TestRootPeerContainer: containers see the pod's network and no other, the agent's socket in the pod's directory
// outlives the sandbox's creation, and what lies on a volume opens no device and raises nobody's rights.
func TestRootPeerContainer(t *testing.T) {
	inside := makePeer(t)
	g := startJudgedGuest(t, allowAll{}, nil, nil, inPeer)
	socket, err := net.Listen("unix", g.dir+"/agent.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	g.sandbox(t)
	if _, err := os.Lstat(g.dir + "/agent.sock"); err != nil {
		t.Errorf("the agent's socket: %v", err)
	}
	r := request("peer0", "sh", "-c", "readlink /proc/self/ns/net; ls /sys/class/net; grep ' /data ' /proc/self/mounts; echo kept > /data/file")
	r.OCI.Linux.Namespaces = append(r.OCI.Linux.Namespaces[:3], &kata.LinuxNamespace{Type: "network", Path: replay.PodNetNS})
	r.OCI.Mounts = append(r.OCI.Mounts, &kata.Mount{Destination: "/data", Source: replay.CloudVolume, Type: "bind", Options: []string{"rbind", "suid", "dev"}})
	g.start(t, r)
	out := g.output(t, "peer0")
	var st unix.Stat_t
	if err := unix.Fstat(int(inside), &st); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("net:[%d]", st.Ino); !strings.Contains(out, want) || strings.Contains(out, "decoy") || !strings.Contains(out, "nic0") {
		t.Errorf("got %q, want namespace %s", out, want)
	}
	for _, o := range []string{"nosuid", "nodev"} {
		if !slices.ContainsFunc(strings.Split(out, "\n"), func(l string) bool { return strings.Contains(l, " /data ") && strings.Contains(l, o) }) {
			t.Errorf("the volume is mounted without %s: %q", o, out)
		}
	}
	if raw, err := os.ReadFile(replay.CloudVolume + "/file"); string(raw) != "kept\n" {
		t.Errorf("on the volume: %q, %v", raw, err)
	}
}

// TestRootPeerWithoutNetwork: a namespace that is not there, or no namespace of a network, is an error and not the
// guest's own network.
func TestRootPeerWithoutNetwork(t *testing.T) {
	makePeer(t)
	for name, path := range map[string]string{"absent": "/run/netns/absent", "a file": "/etc/passwd", "another kind": "/proc/self/ns/uts"} {
		t.Run(name, func(t *testing.T) {
			g := startJudgedGuest(t, allowAll{}, nil, nil, func(c *pod.Config) { c.NetNS = func() string { return path } })
			_, err := g.UpdateInterface(within(t), &kata.UpdateInterfaceRequest{Interface: &kata.Interface{Name: "eth0", HwAddr: peerNIC.String()}})
			wantCode(t, "interface", err, codes.FailedPrecondition, "the pod's network namespace is not there")
			_, err = g.ListRoutes(within(t), &kata.ListRoutesRequest{})
			wantCode(t, "routes", err, codes.FailedPrecondition, "the pod's network namespace is not there")
			g.sandbox(t)
			r := request("peer0", "true")
			r.OCI.Linux.Namespaces = r.OCI.Linux.Namespaces[:3]
			if _, err := g.CreateContainer(within(t), r); err == nil {
				t.Error("a container without the pod's network")
			}
		})
	}
}
