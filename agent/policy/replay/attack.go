// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

// Attacks is the pod's life again, cut short while all of it runs, with a host in between that wants more. Every
// request of the host's own is to be refused by every policy.
func (s Stack) Attacks() []Step {
	q := new(sequence)
	s.sandboxAttacks(q)
	s.open(q)
	q.neither("second sandbox", s.sandbox())
	q.neither("second pause", s.changed(s.pause(), func(m *kata.CreateContainerRequest) { m.ContainerId = s.ID("pause2") }))
	all := containers()
	s.createAttacks(q, &all[1])
	s.createAttacks(q, &all[2])
	s.plainAttacks(q, &all[2])
	s.copyAttacks(q)
	for i := range all {
		s.copies(q, &all[i])
		s.run(q, &all[i])
	}
	s.execAttacks(q, &all[1])
	s.refusals(q)
	return q.steps
}

// inOrder calls f with each entry, in the order of the names.
func inOrder[V any](table map[string]V, f func(string, V)) {
	for _, name := range slices.Sorted(maps.Keys(table)) {
		f(name, table[name])
	}
}

func (s Stack) changed(m *kata.CreateContainerRequest, f func(*kata.CreateContainerRequest)) *kata.CreateContainerRequest {
	m = proto.Clone(m).(*kata.CreateContainerRequest)
	f(m)
	return m
}

func (s Stack) sandboxAttacks(q *sequence) {
	q.neither("pause before its sandbox", s.pause())
	inOrder(map[string]func(*kata.CreateSandboxRequest){
		"guest hooks":     func(m *kata.CreateSandboxRequest) { m.GuestHookPath = "/usr/share/hooks" },
		"kernel module":   func(m *kata.CreateSandboxRequest) { m.KernelModules = []*kata.KernelModule{{Name: "vfat"}} },
		"one PID space":   func(m *kata.CreateSandboxRequest) { m.SandboxPidns = true },
		"host's files":    func(m *kata.CreateSandboxRequest) { m.Storages = append(m.Storages, virtiofs()) },
		"disk over /etc":  func(m *kata.CreateSandboxRequest) { m.Storages[0] = disk("/etc") },
		"shm over the CA": func(m *kata.CreateSandboxRequest) { m.Storages[0].MountPoint = "/etc/ssl" },
	}, func(name string, f func(*kata.CreateSandboxRequest)) {
		m := s.sandbox()
		f(m)
		q.neither("sandbox with "+name, m)
	})
}

func virtiofs() *kata.Storage {
	return &kata.Storage{Driver: "virtio-fs", Source: "kataShared", Fstype: "virtiofs", MountPoint: "/run/kata-containers/shared/containers/"}
}

func disk(at string) *kata.Storage {
	return &kata.Storage{Driver: "blk", Source: "02/01", Fstype: "ext4", MountPoint: at}
}

type create = kata.CreateContainerRequest

// createAttacks are what no container of the pod may be.
func (s Stack) createAttacks(q *sequence, c *container) {
	id := s.ID(c.name)
	process := func(f func(*kata.Process)) func(*create) { return func(m *create) { f(m.OCI.Process) } }
	linux := func(f func(*kata.Linux)) func(*create) { return func(m *create) { f(m.OCI.Linux) } }
	mount := func(destination, source, kind string, options ...string) func(*create) {
		return func(m *create) {
			m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: destination, Source: source, Type: kind, Options: options})
		}
	}
	inOrder(map[string]func(*create){
		"all capabilities":        process(func(p *kata.Process) { p.Capabilities.Bounding = append(p.Capabilities.Bounding, "CAP_SYS_ADMIN") }),
		"an ambient capability":   process(func(p *kata.Process) { p.Capabilities.Ambient = []string{"CAP_SYS_PTRACE"} }),
		"no word on capabilities": process(func(p *kata.Process) { p.Capabilities = nil }),
		"a user by name":          func(m *create) { m.StringUser = &kata.StringUser{Uid: "root"} },
		"the guest's disk": func(m *create) {
			m.Devices = []*kata.Device{{Type: "blk", VmPath: "/dev/vda", ContainerPath: "/dev/x"}}
		},
		"the TEE's device": linux(func(l *kata.Linux) {
			l.Devices = []*kata.LinuxDevice{{Path: "/dev/sev-guest", Type: "c", Major: 10, Minor: 125}}
		}),
		"a host's path as namespace": linux(func(l *kata.Linux) { l.Namespaces[0].Path = "/proc/1/ns/ipc" }),
		"a user namespace":           linux(func(l *kata.Linux) { l.Namespaces = append(l.Namespaces, &kata.LinuxNamespace{Type: "user"}) }),
		"a sysctl":                   linux(func(l *kata.Linux) { l.Sysctl = map[string]string{"net.ipv4.conf.all.route_localnet": "1"} }),
		"a shared root":              linux(func(l *kata.Linux) { l.RootfsPropagation = "rshared" }),
		"a hook":                     func(m *create) { m.OCI.Hooks = &kata.Hooks{CreateContainer: []*kata.Hook{{Path: "/bin/sh"}}} },
		"the pod's PID space":        func(m *create) { m.SandboxPidns = true },
		"a mount from its neighbour": func(m *create) {
			m.SharedMounts = []*kata.SharedMount{{Name: "x", SrcCtr: "a", SrcPath: "/", DstCtr: "b", DstPath: "/x"}}
		},
		"a PCI function": func(m *create) {
			m.Devices = []*kata.Device{{Type: "vfio-pci-gk", Id: "vfio0", ContainerPath: "/dev/vfio/12", Options: []string{"0000:3b:00.0=02/00"}}}
		},
		"a device that an annotation names": func(m *create) { m.OCI.Annotations["cdi.k8s.io/vfio12.0"] = "nvidia.com/gpu=0" },
		"a second image":                    func(m *create) { m.Storages = append(m.Storages, m.Storages[0]) },
		"no image":                          func(m *create) { m.Storages = nil },
		"a disk":                            func(m *create) { m.Storages = append(m.Storages, disk("/run/kata-containers/sandbox/storage/x")) },
		"the host's files":                  func(m *create) { m.Storages = append(m.Storages, virtiofs()) },
		"the guest's root":                  mount("/host", "/", "bind", "rbind"),
		"the key service's socket":          mount("/run/cdh.sock", "/run/confidential-containers/cdh.sock", "bind", "rbind"),
		"configfs":                          mount("/sys/kernel/config", "configfs", "configfs"),
		"a file over its program":           mount("/app", s.Copied(id, "/etc/hosts"), "bind", "rbind"),
		"a file over its libraries":         mount("/usr/lib", s.Copied(id, "/usr/lib"), "bind", "rbind"),
		"hosts from the guest":              mount("/etc/hosts", "/etc/casemate/casemate.toml", "bind", "rbind"),
		"hosts by a parent":                 mount("/etc/hosts", Shared+id+"-0123456789abcdef-x/../../../../../etc/hosts", "bind", "rbind"),
		"a token from its neighbour":        mount(serviceAccount, "/run/kata-containers/"+s.ID("plain")+"/rootfs/serviceaccount", "bind", "rbind"),
		"one file writable":                 mount(OneFile, s.Copied(id, OneFile), "bind", "rbind", "rw"),
		"one file of a tree":                mount(OneFile, s.Copied(id, "/etc/app")+"/app.conf", "bind", "rbind", "ro"),
		"one file by a parent":              mount(OneFile, s.Copied(id, "/etc/app")+"/../x-0123456789abcdef-app.conf", "bind", "rbind", "ro"),
		"one file that is another":          mount(OneFile, s.Copied(id, "/etc/hosts"), "bind", "rbind", "ro"),
		"one file somewhere else":           mount("/etc/ld.so.preload", s.Copied(id, OneFile), "bind", "rbind", "ro"),
		"one file of the guest":             mount(OneFile, "/etc/casemate/app.conf", "bind", "rbind", "ro"),
		"the sandbox's own annotation":      func(m *create) { m.OCI.Annotations = s.annotations(m.ContainerId, "POD", "") },
	}, func(name string, f func(*create)) { q.neither(c.name+" with "+name, s.changed(s.create(c, ""), f)) })
	q.neither("no OCI part", &create{ContainerId: id})
}

// plainAttacks change what an image's config says. The built-in policy leaves them to the comparison with the config,
// so to it they look like any other image's container.
func (s Stack) plainAttacks(q *sequence, c *container) {
	process := func(f func(*kata.Process)) func(*create) { return func(m *create) { f(m.OCI.Process) } }
	inOrder(map[string]func(*create){
		"a shell":             process(func(p *kata.Process) { p.Args = []string{"sh", "-c", "fetch 127.0.0.1:8006/cdh/resource/a/b/c"} }),
		"an argument":         process(func(p *kata.Process) { p.Args = append(p.Args, "--insecure") }),
		"a preloaded library": process(func(p *kata.Process) { p.Env = append(p.Env, "LD_PRELOAD=/etc/hosts") }),
		"its path changed":    process(func(p *kata.Process) { p.Env[0] = "PATH=/data" }),
		"root":                process(func(p *kata.Process) { p.User.UID, p.User.GID = 0, 0 }),
		"root's group":        process(func(p *kata.Process) { p.User.GID = 0 }),
		"root's group beside": process(func(p *kata.Process) { p.User.AdditionalGids = []uint32{33, 0} }),
		"another directory":   process(func(p *kata.Process) { p.Cwd = "/etc" }),
		"a terminal":          process(func(p *kata.Process) { p.Terminal = true }),
		"another image":       func(m *create) { m.Storages[0].Source = "registry.example/other:1" },
	}, func(name string, f func(*create)) {
		q.add("plain with "+name, s.changed(s.create(c, ""), f), false, true)
	})
}

func (s Stack) copyAttacks(q *sequence) {
	id := s.ID("app")
	at := s.Copied(id, "/etc/app")
	inOrder(map[string]*kata.CopyFileRequest{
		"over the agent":          s.file("/usr/bin/kata-agent", "x"),
		"over the policy":         s.file("/run/casemate/policy.rego", "x"),
		"into a container":        s.file("/run/kata-containers/"+id+"/rootfs/etc/passwd", "x"),
		"up":                      s.file(at+"/../../../x", "x"),
		"beside":                  s.file(Shared+"x", "x"),
		"a device":                {Path: at, FileMode: 0o060600},
		"a socket":                {Path: at, FileMode: 0o140600},
		"of no kind":              {Path: at, FileMode: 0o600},
		"a link at the top":       s.link(at, "x"),
		"a link elsewhere":        s.link(at+"/conf", "/etc/casemate"),
		"a link up":               s.link(at+"/conf", "../../../../etc"),
		"a link down and then up": s.link(at+"/conf", "a/../../../x"),
	}, func(name string, m *kata.CopyFileRequest) { q.neither("copy "+name, m) })
}

func (s Stack) execAttacks(q *sequence, c *container) {
	id := s.ID(c.name)
	check := []string{"/app", "--check"}
	inOrder(map[string]func(*kata.ExecProcessRequest){
		"a shell":             func(m *kata.ExecProcessRequest) { m.Process.Args = []string{"sh"} },
		"an argument":         func(m *kata.ExecProcessRequest) { m.Process.Args = append(m.Process.Args, "-v") },
		"no process":          func(m *kata.ExecProcessRequest) { m.Process = nil },
		"root":                func(m *kata.ExecProcessRequest) { m.Process.User = &kata.User{} },
		"root's group":        func(m *kata.ExecProcessRequest) { m.Process.User.GID = 0 },
		"root's group beside": func(m *kata.ExecProcessRequest) { m.Process.User.AdditionalGids = []uint32{0} },
		"a user by name":      func(m *kata.ExecProcessRequest) { m.StringUser = &kata.StringUser{Uid: "root"} },
		"a preloaded library": func(m *kata.ExecProcessRequest) { m.Process.Env = append(m.Process.Env, "LD_PRELOAD=/etc/hosts") },
		"another path":        func(m *kata.ExecProcessRequest) { m.Process.Env = []string{"PATH=/data"} },
		"another directory":   func(m *kata.ExecProcessRequest) { m.Process.Cwd = "/data" },
		"a terminal":          func(m *kata.ExecProcessRequest) { m.Process.Terminal = true },
		"all capabilities": func(m *kata.ExecProcessRequest) {
			m.Process.Capabilities = &kata.LinuxCapabilities{Effective: []string{"CAP_SYS_ADMIN"}}
		},
		"another's container":   func(m *kata.ExecProcessRequest) { m.ContainerId = s.ID("plain") },
		"no such container":     func(m *kata.ExecProcessRequest) { m.ContainerId = s.ID("nobody") },
		"a key of the state":    func(m *kata.ExecProcessRequest) { m.ContainerId = "containers" },
		"a label of the host's": func(m *kata.ExecProcessRequest) { m.Process.SelinuxLabel = "system_u:system_r:spc_t:s0" },
	}, func(name string, f func(*kata.ExecProcessRequest)) {
		m := &kata.ExecProcessRequest{ContainerId: id, ExecId: s.ID("exec"), Process: s.exec(c, check...)}
		f(m)
		q.neither("exec with "+name, m)
	})
	q.neither("input", &kata.WriteStreamRequest{ContainerId: id, Data: []byte("x")})
}

// refusals are requests that no pod needs.
func (s Stack) refusals(q *sequence) {
	id := s.ID("app")
	for _, m := range []proto.Message{
		&kata.SetPolicyRequest{Policy: "package agent_policy\ndefault ExecProcessRequest := true"},
		&kata.SetGuestDateTimeRequest{Sec: 1}, &kata.ReseedRandomDevRequest{Data: []byte{0}}, &kata.MemHotplugByProbeRequest{},
		&kata.AddSwapRequest{}, &kata.AddSwapPathRequest{}, &kata.SetIPTablesRequest{}, &kata.GetIPTablesRequest{},
		&kata.UpdateEphemeralMountsRequest{Storages: []*kata.Storage{{Driver: "ephemeral", MountPoint: "/etc"}}},
		&kata.PauseContainerRequest{ContainerId: id}, &kata.ResizeVolumeRequest{}, &kata.MemAgentMemcgConfig{},
	} {
		q.neither("request that no pod needs", m)
	}
}
