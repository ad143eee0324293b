// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"testing"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy/replay"
)

func builtIn(t *testing.T) *Policy {
	t.Helper()
	p, err := BuiltIn(false)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestStrict: of a pod's life the strict form refuses the copies and nothing else; logs are the reader's affair.
func TestStrict(t *testing.T) {
	for _, s := range replay.Stacks() {
		plain := builtIn(t)
		strict, err := BuiltIn(true)
		if err != nil {
			t.Fatal(err)
		}
		copies, reads := 0, 0
		for _, step := range append(s.Life(), s.Attacks()...) {
			want := codeOf(t, plain.Allow(t.Context(), step.Request(), step.Msg))
			switch step.Request() {
			case "CopyFileRequest":
				copies++
				want = deny
			case "ReadStreamRequest":
				reads++
			}
			if got := codeOf(t, strict.Allow(t.Context(), step.Request(), step.Msg)); got != want {
				t.Errorf("%s: %s: got %q, want %q", s, step.Name, got, want)
			}
		}
		if copies < 10 || reads == 0 {
			t.Errorf("%s has %d copies and %d reads", s, copies, reads)
		}
	}
}

// pauseWith is the sandbox's own container with one thing changed.
func pauseWith(change func(*kata.CreateContainerRequest)) *kata.CreateContainerRequest {
	return create(cid, []string{"/pause"}, []string{"PATH=/usr/bin:/bin"}, change)
}

// imageWith is a container of an image with one thing changed.
func imageWith(change func(*kata.CreateContainerRequest)) *kata.CreateContainerRequest {
	return create("app", []string{"/app"}, []string{"PATH=/usr/bin:/bin"}, func(m *kata.CreateContainerRequest) {
		m.OCI.Annotations = map[string]string{"io.kubernetes.cri.container-type": "container"}
		m.Storages[0].Source = "registry.example/app:1"
		change(m)
	})
}

// layersOf puts a writable disk and a layer in place of the pull.
func layersOf(image string) func(*kata.CreateContainerRequest) {
	return func(m *kata.CreateContainerRequest) {
		m.OCI.Annotations["io.kubernetes.cri.image-name"] = image
		m.Storages = []*kata.Storage{
			{Driver: "blk", Source: "02", Fstype: "ext4", Options: []string{"rw", "X-kata.overlay-upper", "X-kata.multi-layer=true"}},
			{Driver: "erofs.multi-layer", Source: "/dev/vdb", Fstype: "erofs", Options: []string{"ro"}},
		}
	}
}

// TestBuiltInCorpus replays a pod's life and what a host could try in it.
func TestBuiltInCorpus(t *testing.T) {
	type req = kata.CreateContainerRequest
	mount := func(destination, source, kind string) func(*req) {
		return func(m *req) {
			m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: destination, Source: source, Type: kind, Options: []string{"rbind"}})
		}
	}
	route := func(r *kata.Route) *kata.UpdateRoutesRequest {
		return &kata.UpdateRoutesRequest{Routes: &kata.Routes{Routes: []*kata.Route{r}}}
	}
	replayRows(t, builtIn(t), []row{
		{"interface", iface("eth0", "", "10.0.0.2"), ""},
		{"loopback by name", iface("lo", "", "10.0.0.2"), deny},
		{"loopback address", iface("eth0", "", "127.0.0.1"), deny},
		{"loopback address, v6", iface("eth0", "", "::1"), deny},
		{"loopback address, mapped", iface("eth0", "", "::ffff:127.0.0.1"), deny},
		{"loopback address, mapped and in hexadecimal", iface("eth0", "", "::FFFF:7f00:1"), deny},
		{"address, v6", iface("eth0", "", "fd00::1"), ""},
		{"loopback address, v6 in full", iface("eth0", "", "0:0:0:0:0:0:0:0001"), deny},
		{"no interface", &kata.UpdateInterfaceRequest{}, deny},
		{"route", route(&kata.Route{Gateway: "10.0.0.1", Device: "eth0"}), ""},
		{"route to loopback", route(&kata.Route{Dest: "127.0.0.0/8", Device: "eth0"}), deny},
		{"route by loopback", route(&kata.Route{Dest: "10.0.0.0/8", Device: "lo"}), deny},
		{"no routes", &kata.UpdateRoutesRequest{}, deny},
		{"neighbour", &kata.AddARPNeighborsRequest{Neighbors: &kata.ARPNeighbors{ARPNeighbors: []*kata.ARPNeighbor{{Device: "eth0", ToIPAddress: &kata.IPAddress{Address: "10.0.0.1"}}}}}, ""},
		{"neighbour on loopback", &kata.AddARPNeighborsRequest{Neighbors: &kata.ARPNeighbors{ARPNeighbors: []*kata.ARPNeighbor{{Device: "lo"}}}}, deny},
		{"container before sandbox", pauseWith(func(*req) {}), deny},
		{"sandbox with hooks", &kata.CreateSandboxRequest{GuestHookPath: "/x"}, deny},
		{"sandbox with a module", &kata.CreateSandboxRequest{KernelModules: []*kata.KernelModule{{Name: "x"}}}, deny},
		{"sandbox with one pid namespace", &kata.CreateSandboxRequest{SandboxPidns: true}, deny},
		{"sandbox with a disk", &kata.CreateSandboxRequest{Storages: []*kata.Storage{{Driver: "blk", Source: "/dev/vda"}}}, deny},
		{"sandbox storage over initdata", &kata.CreateSandboxRequest{Storages: []*kata.Storage{{Driver: "ephemeral", Fstype: "tmpfs", Source: "shm", MountPoint: "/run/casemate"}}}, deny},
		{"sandbox", &kata.CreateSandboxRequest{SandboxId: "s", Storages: []*kata.Storage{{Driver: "ephemeral", Fstype: "tmpfs", Source: "shm", MountPoint: "/run/kata-containers/sandbox/shm", Options: []string{"noexec"}}}}, ""},
		{"second sandbox", &kata.CreateSandboxRequest{SandboxId: "t"}, deny},

		{"copy resolv.conf", file(shared+"resolv.conf", modeRegular|0o644), ""},
		{"copy into passthrough", file("/run/kata-containers/shared/containers/passthrough/"+cid+"-0123456789abcdef-hosts", modeRegular), ""},
		{"copy watchable", file("/run/kata-containers/shared/containers/watchable/"+cid+"-0123456789abcdef-cm", modeRegular), ""},
		{"copy over the agent", file("/usr/bin/kata-agent", modeRegular|0o755), deny},
		{"copy over policy", file("/run/casemate/policy.rego", modeRegular), deny},
		{"copy into a container", file("/run/kata-containers/"+cid+"/rootfs/etc/passwd", modeRegular), deny},
		{"copy up", file(shared+"a/../../../etc/passwd", modeRegular), deny},
		{"copy up at the end", file(shared+"a/..", modeDirectory), deny},
		{"copy over another line", file("/x\n"+shared+"hosts", modeRegular), deny},
		{"copy a line behind", file(shared+"hosts\n/x", modeRegular), deny},
		{"copy with short id", file("/run/kata-containers/shared/containers/abc-0123456789abcdef-hosts", modeRegular), deny},
		{"copy empty element", file(shared+"a//b", modeRegular), deny},
		{"copy set-user-id", file(shared+"a", modeRegular|0o4755), deny},
		{"copy set-group-id", file(shared+"a", modeRegular|0o2755), deny},
		{"copy a device", file(shared+"a", 0o060000|0o600), deny},
		{"copy a directory", &kata.CopyFileRequest{Path: shared + "serviceaccount", FileMode: modeDirectory | 0o755}, ""},
		{"projected token's link", link(shared+"serviceaccount/token", "..data/token"), ""},
		{"projected token's swap", link(shared+"serviceaccount/..data", "..2026_01_02_03_04_05.123"), ""},
		{"CVE-2026-41326 link at the top", link(shared+"serviceaccount", "x"), deny},
		{"CVE-2026-41326 link to elsewhere", link(shared+"serviceaccount/token", "/etc"), deny},
		{"CVE-2026-41326 link upwards", link(shared+"serviceaccount/token", "a/../../x"), deny},
		{"link to nothing", link(shared+"serviceaccount/token", ""), deny},

		{"shell instead of pause", create(cid, []string{"sh", "-c", "fetch 127.0.0.1:8006"}, nil), deny},
		{"pause as another container", pauseWith(func(m *req) { m.OCI.Annotations["io.kubernetes.cri.container-type"] = "container" }), deny},
		{"image's container", create(cid, []string{"/pause"}, nil, func(m *req) { m.Storages[0].Source = "registry.example/app:1" }), deny},
		{"preload", create(cid, []string{"/pause"}, []string{"LD_PRELOAD=/x"}), deny},
		{"terminal", pauseWith(func(m *req) { m.OCI.Process.Terminal = true }), deny},
		{"added capability", pauseWith(func(m *req) { m.OCI.Process.Capabilities.Effective = []string{"CAP_SYS_ADMIN"} }), deny},
		{"ambient capability", pauseWith(func(m *req) { m.OCI.Process.Capabilities.Ambient = []string{"CAP_BPF"} }), deny},
		{"no capability sets", pauseWith(func(m *req) { m.OCI.Process.Capabilities = nil }), deny},
		{"new privileges", pauseWith(func(m *req) { m.OCI.Process.NoNewPrivileges = false }), deny},
		{"user namespace", pauseWith(func(m *req) { m.OCI.Linux.Namespaces[3].Type = "user" }), deny},
		{"image before pause", imageWith(func(*req) {}), deny},
		{"another's pid namespace", pauseWith(func(m *req) { m.OCI.Linux.Namespaces[3].Path = "/proc/1/ns/pid" }), deny},
		{"shared pid namespace", pauseWith(func(m *req) { m.SandboxPidns = true }), deny},
		{"device", pauseWith(func(m *req) { m.Devices = []*kata.Device{{VmPath: "/dev/vda"}} }), deny},
		{"device node", pauseWith(func(m *req) { m.OCI.Linux.Devices = []*kata.LinuxDevice{{Path: "/dev/sev-guest"}} }), deny},
		{"hook", pauseWith(func(m *req) { m.OCI.Hooks = &kata.Hooks{StartContainer: []*kata.Hook{{Path: "/x"}}} }), deny},
		{"sysctl", pauseWith(func(m *req) { m.OCI.Linux.Sysctl = map[string]string{"kernel.core_pattern": "|/x"} }), deny},
		{"shared propagation", pauseWith(func(m *req) { m.OCI.Linux.RootfsPropagation = "rshared" }), deny},
		{"shared mount", pauseWith(func(m *req) { m.SharedMounts = []*kata.SharedMount{{}} }), deny},
		{"block storage", pauseWith(func(m *req) { m.Storages = append(m.Storages, &kata.Storage{Driver: "blk"}) }), deny},
		{"mount over the tenant's program", pauseWith(mount("/pause", shared+"hosts", "bind")), deny},
		{"mount over /proc/sys", pauseWith(mount("/proc/sys", "proc", "proc")), deny},
		{"mount of configfs", pauseWith(mount("/sys/kernel/config", "configfs", "configfs")), deny},
		{"mount of the guest's root", pauseWith(mount("/etc/hosts", "/", "bind")), deny},
		{"mount of a socket", pauseWith(mount("/etc/hosts", "/run/confidential-containers/cdh.sock", "bind")), deny},
		{"mount of another's name", pauseWith(mount("/etc/resolv.conf", shared+"hosts", "bind")), deny},
		{"mount upwards", pauseWith(mount("/etc/hosts", shared+"../-hosts", "bind")), deny},
		{"no OCI part", &req{ContainerId: cid}, deny},
		{"pause", pauseWith(func(m *req) {
			mount("/etc/resolv.conf", shared+"resolv.conf", "bind")(m)
			mount("/dev/shm", "/run/kata-containers/sandbox/shm", "bind")(m)
			mount("/sys", "sysfs", "sysfs")(m)
		}), ""},
		{"second pause on layers", pauseWith(layersOf("pause")), deny},
		{"second pause", pauseWith(func(*req) {}), deny},

		{"image", imageWith(func(*req) {}), ""},
		{"image with privilege escalation left as Kubernetes has it", imageWith(func(m *req) { m.OCI.Process.NoNewPrivileges = false }), ""},
		{"image with the runtime's file systems", imageWith(func(m *req) {
			mount("/etc/resolv.conf", shared+"resolv.conf", "bind")(m)
			mount("/sys/fs/cgroup", "cgroup", "cgroup")(m)
		}), ""},
		{"image on the host's layers", imageWith(layersOf("registry.example/app:1")), ""},
		{"image on the host's layers and pulled", imageWith(func(m *req) {
			pull := m.Storages[0]
			layersOf("registry.example/app:1")(m)
			m.Storages = append(m.Storages, pull)
		}), deny},
		{"image on the host's layers and a disk", imageWith(func(m *req) {
			layersOf("registry.example/app:1")(m)
			m.Storages = append(m.Storages, &kata.Storage{Driver: "blk"})
		}), deny},
		{"image with two images", imageWith(func(m *req) { m.Storages = append(m.Storages, m.Storages[0]) }), deny},
		{"image with a disk", imageWith(func(m *req) { m.Storages = append(m.Storages, &kata.Storage{Driver: "blk"}) }), deny},
		{"image without an image", imageWith(func(m *req) { m.Storages = nil }), deny},
		{"image that is pause", imageWith(func(m *req) { m.Storages[0].Source = "pause" }), deny},
		{"privileged image", imageWith(func(m *req) { m.OCI.Process.Capabilities.Bounding = []string{"CAP_SYS_ADMIN"} }), deny},
		{"image without capability sets", imageWith(func(m *req) { m.OCI.Process.Capabilities = nil }), deny},
		{"image in another's pid namespace", imageWith(func(m *req) { m.OCI.Linux.Namespaces[3].Path = "/proc/1/ns/pid" }), deny},
		{"image with a device", imageWith(func(m *req) { m.OCI.Linux.Devices = []*kata.LinuxDevice{{Path: "/dev/tpm0"}} }), deny},
		{"image with the guest's disk", imageWith(func(m *req) { m.Devices = []*kata.Device{{VmPath: "/dev/vda"}} }), deny},
		{"image with a host directory", imageWith(mount("/data", shared+"data", "bind")), deny},
		{"GHSA-fmg6-v47x-52wr mount over the tenant's files", imageWith(mount("/app", shared+"hosts", "bind")), deny},
		{"GHSA-fmg6-v47x-52wr guest path over /etc/hosts", imageWith(mount("/etc/hosts", "/run/casemate/x", "bind")), deny},
		{"image that reads the key service", imageWith(mount("/etc/hosts", "/run/confidential-containers/cdh.sock", "bind")), deny},
		{"image with sysctls", imageWith(func(m *req) { m.OCI.Linux.Sysctl = map[string]string{"net.ipv4.conf.all.route_localnet": "1"} }), deny},
		{"image by a user's name", imageWith(func(m *req) { m.StringUser = &kata.StringUser{Uid: "app"} }), deny},

		{"start", &kata.StartContainerRequest{ContainerId: cid}, ""},
		{"logs", &kata.ReadStreamRequest{ContainerId: cid}, ""},
		{"wait", &kata.WaitProcessRequest{ContainerId: cid}, ""},
		{"statistics", &kata.StatsContainerRequest{ContainerId: cid}, ""},
		{"out of memory", &kata.GetOOMEventRequest{}, ""},
		{"details", &kata.GuestDetailsRequest{}, ""},
		{"exec", exec(cid, "sh"), silent},
		{"exec of what runs", exec(cid, "/pause"), silent},
		{"stdin", &kata.WriteStreamRequest{ContainerId: cid, Data: []byte("x")}, silent},
		{"policy", &kata.SetPolicyRequest{Policy: "package agent_policy"}, silent},
		{"update", &kata.UpdateContainerRequest{ContainerId: cid}, silent},
		{"clock", &kata.SetGuestDateTimeRequest{Sec: 1}, silent},
		{"entropy", &kata.ReseedRandomDevRequest{Data: []byte{1}}, silent},
		{"packet filter", &kata.SetIPTablesRequest{}, silent},
		{"packet filter's rules", &kata.GetIPTablesRequest{}, silent},
		{"memory", &kata.MemHotplugByProbeRequest{}, silent},
		{"swap", &kata.AddSwapRequest{}, silent},
		{"mounts", &kata.UpdateEphemeralMountsRequest{}, silent},
		{"diagnostics", &kata.GetDiagnosticDataRequest{}, silent},
		{"signal", &kata.SignalProcessRequest{ContainerId: cid, Signal: 9}, ""},
		{"remove another", &kata.RemoveContainerRequest{ContainerId: "x"}, ""},
		{"remove", &kata.RemoveContainerRequest{ContainerId: cid}, ""},
		{"end", &kata.DestroySandboxRequest{}, ""},
	})
	replayRows(t, builtIn(t), []row{
		{"sandbox by runtime-rs", &kata.CreateSandboxRequest{Hostname: "p"}, ""},
		{"pause by runtime-rs under cri-o", pauseWith(bySecond), ""},
	})
}
