// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy"
)

// catalogue is images by reference.
type catalogue map[string]*ImageConfig

func (c catalogue) Config(_ context.Context, reference string) (*ImageConfig, error) {
	if img := c[reference]; img != nil {
		return img, nil
	}
	return nil, errors.New("not found")
}

var images = catalogue{
	"registry.example/app:1": {
		Digest: "sha256:11", Entrypoint: []string{"/app"}, Cmd: []string{"--serve"}, WorkingDir: "/srv", User: "1000:1000",
		Env: []string{"PATH=/usr/bin:/bin", "MODE=image"},
	},
	"busybox":                 {Digest: "sha256:22", Cmd: []string{"sh"}},
	"registry.example/named":  {Digest: "sha256:33", Cmd: []string{"/x"}, User: "nginx"},
	"registry.example/silent": {Digest: "sha256:44"},
}

const podFile = `
apiVersion: v1
kind: Pod
metadata: {name: shop}
spec:
  enableServiceLinks: false
  automountServiceAccountToken: false
  volumes:
  - {name: scratch, emptyDir: {}}
  - {name: settings, configMap: {name: s}}
  initContainers:
  - {name: prepare, image: busybox, command: [sh, -c, "echo $(GREETING) $$(GREETING)"], env: [{name: GREETING, value: hi}]}
  containers:
  - name: app
    image: registry.example/app:1
    args: [--port, "80"]
    env:
    - {name: MODE, value: pod}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: t, key: k}}}
    - {name: WHERE, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    volumeMounts:
    - {name: scratch, mountPath: /data}
    - {name: settings, mountPath: /etc/app, readOnly: true}
    livenessProbe: {exec: {command: [/app, --check]}}
    lifecycle: {preStop: {exec: {command: [/app, --stop]}}}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL], add: [NET_BIND_SERVICE]}
`

func generate(t *testing.T, text string, o Options) *Policy {
	t.Helper()
	p, err := Generate(t.Context(), []byte(text), images, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func load(t *testing.T, p *Policy) *policy.Policy {
	t.Helper()
	loaded, err := policy.Load(p.Rego)
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Rego)
	}
	return loaded
}

func TestSameFileSameBytes(t *testing.T) {
	a, b := generate(t, podFile, Options{}), generate(t, podFile, Options{})
	if !bytes.Equal(a.Rego, b.Rego) {
		t.Error("two policies of one file differ")
	}
}

// TestNotes: what stays open is said, by the container's name.
func TestNotes(t *testing.T) {
	got := strings.Join(generate(t, podFile, Options{}).Notes, "\n")
	for _, want := range []string{
		"prepare: image busybox is sha256:22 today",
		"app: image registry.example/app:1 is sha256:11 today",
		"app: the host chooses the value of TOKEN",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no note %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "WHERE") || strings.Contains(got, "services") {
		t.Errorf("notes on what is closed:\n%s", got)
	}
}

func TestRefusals(t *testing.T) {
	pod := func(spec string) string { return "kind: Pod\nmetadata: {name: p}\nspec: " + spec + "\n" }
	one := func(fields string) string { return pod("{containers: [{name: c, image: busybox, " + fields + "}]}") }
	for name, tt := range map[string]struct{ text, want string }{
		"no pod":                            {"kind: Service\n", "no Pod, Deployment"},
		"no YAML":                           {"\tkind: [", "reading"},
		"no containers":                     {pod("{}"), "no containers"},
		"nameless":                          {pod("{containers: [{image: busybox}]}"), "want a name and an image"},
		"host network":                      {pod("{hostNetwork: true, containers: [{name: c, image: busybox}]}"), "hostNetwork is not for a confidential guest"},
		"host pid":                          {pod("{hostPID: true, containers: [{name: c, image: busybox}]}"), "hostPID"},
		"sysctls":                           {pod("{securityContext: {sysctls: [{name: a, value: b}]}, containers: [{name: c, image: busybox}]}"), "sysctls"},
		"privileged":                        {one("securityContext: {privileged: true}"), "container c: securityContext.privileged"},
		"all capabilities":                  {one("securityContext: {capabilities: {add: [ALL]}}"), "names ALL"},
		"device of no volume":               {one("volumeDevices: [{name: d, devicePath: /dev/x}]"), "there is no volume d"},
		"device that climbs":                {pod("{volumes: [{name: d, persistentVolumeClaim: {claimName: x}}], containers: [{name: c, image: busybox, volumeDevices: [{name: d, devicePath: /dev/../x}]}]}"), "clean absolute path"},
		"unknown environment":               {one("envFrom: [{configMapRef: {name: x}}]"), "ConfigMap x is not in the file"},
		"environment from nowhere":          {one("envFrom: [{prefix: A_}]"), "want configMapRef or secretRef"},
		"environment from no name":          {"kind: ConfigMap\nmetadata: {name: x}\ndata: {a-b: v}\n---\n" + one("envFrom: [{configMapRef: {name: x}}]"), `"a-b" is no name of a variable`},
		"a map twice":                       {strings.Repeat("kind: Secret\nmetadata: {name: x}\n---\n", 2) + one("tty: false"), "stands in the file twice"},
		"a map of lists":                    {"kind: ConfigMap\nmetadata: {name: x}\ndata: {a: [1]}\n---\n" + one("tty: false"), "data: "},
		"unknown volume":                    {one("volumeMounts: [{name: v, mountPath: /v}]"), "there is no volume v"},
		"unknown image":                     {pod("{containers: [{name: c, image: registry.example/gone}]}"), "registry.example/gone: not found"},
		"user by name in a group by number": {pod("{containers: [{name: c, image: registry.example/named, command: [x], securityContext: {runAsGroup: 5}}]}"), `runs as "nginx"`},
		"user by name with further groups":  {pod("{securityContext: {fsGroup: 5}, containers: [{name: c, image: registry.example/named}]}"), `runs as "nginx"`},
		"no command":                        {pod("{containers: [{name: c, image: registry.example/silent}]}"), "neither the pod nor the image names a command"},
		"host path": {pod("{volumes: [{name: v, hostPath: {path: /}}], containers: [{name: c, image: busybox, volumeMounts: [{name: v, mountPath: /v}]}]}"),
			"volume v: want emptyDir"},
		"many documents": {strings.Repeat("---\nkind: Service\n", maxDocuments+1), "documents"},
	} {
		_, err := Generate(t.Context(), []byte(tt.text), images, Options{})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// TestOwners: the pod may stand in what makes pods.
func TestOwners(t *testing.T) {
	template := "{template: {spec: {containers: [{name: c, image: busybox}]}}}"
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"} {
		generate(t, "kind: Service\n---\nkind: "+kind+"\nspec: "+template+"\n", Options{})
	}
	generate(t, "kind: CronJob\nspec: {jobTemplate: {spec: "+template+"}}\n", Options{})
	if _, err := Generate(t.Context(), []byte("kind: Deployment\nspec: {}\n"), images, Options{}); err == nil {
		t.Error("a Deployment without a template: no error")
	}
}

func TestSpellings(t *testing.T) {
	for in, want := range map[string][]string{
		"busybox":                     {"busybox", "docker.io/library/busybox:latest"},
		"library/busybox:1":           {"library/busybox:1", "docker.io/library/busybox:1"},
		"localhost/x:1":               {"localhost/x:1"},
		"registry.example:5000/a/b:1": {"registry.example:5000/a/b:1"},
		"registry.example:5000/a":     {"registry.example:5000/a", "registry.example:5000/a:latest"},
		"registry.example/a@sha256:1": {"registry.example/a@sha256:1"},
	} {
		if got := spellings(in); !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", in, got, want)
		}
	}
}

// Requests in the shape of kata's Go runtime under containerd.

const (
	shared = "/run/kata-containers/shared/containers/"
	copies = shared + "aa-0123456789abcdef-"
)

func request(id, image string, process *kata.Process, change ...func(*kata.CreateContainerRequest)) *kata.CreateContainerRequest {
	kind := "container"
	if image == "pause" {
		kind = "sandbox"
	}
	if process.User == nil {
		process.User = &kata.User{}
	}
	if process.Cwd == "" {
		process.Cwd = "/"
	}
	process.Capabilities = &kata.LinuxCapabilities{Bounding: []string{"CAP_NET_BIND_SERVICE"}}
	m := &kata.CreateContainerRequest{
		ContainerId: id, ExecId: id,
		Storages: []*kata.Storage{{Driver: "image_guest_pull", Source: image, MountPoint: "/run/kata-containers/" + id + "/rootfs"}},
		OCI: &kata.Spec{
			Version: "1.1.0", Process: process, Root: &kata.Root{Path: "/run/kata-containers/" + id + "/rootfs", Readonly: true},
			Mounts: []*kata.Mount{
				{Destination: "/proc", Source: "proc", Type: "proc"},
				{Destination: "/dev/shm", Source: "/run/kata-containers/sandbox/shm", Type: "bind", Options: []string{"rbind"}},
				{Destination: "/etc/hosts", Source: copies + "hosts", Type: "bind", Options: []string{"rbind"}},
			},
			Annotations: map[string]string{"io.kubernetes.cri.container-type": kind},
			Linux:       &kata.Linux{Namespaces: []*kata.LinuxNamespace{{Type: "ipc"}, {Type: "uts"}, {Type: "mount"}, {Type: "pid"}}},
		},
	}
	for _, c := range change {
		c(m)
	}
	return m
}

// disk adds an emptyDir on a disk as kata's runtime does.
func disk(options ...string) func(*kata.CreateContainerRequest) {
	return func(m *kata.CreateContainerRequest) {
		m.Storages = append(m.Storages, &kata.Storage{Driver: "blk", Source: "03", Fstype: "ext4", DriverOptions: options, MountPoint: "/run/kata-containers/sandbox/storage/MDM="})
	}
}

func appProcess() *kata.Process {
	return &kata.Process{
		Args: []string{"/app", "--port", "80"}, Cwd: "/srv", User: &kata.User{UID: 1000, GID: 1000}, NoNewPrivileges: true,
		Env: []string{"PATH=/usr/bin:/bin", "HOSTNAME=shop", "MODE=pod", "TOKEN=x y\nz", "WHERE=10.0.0.7", "KUBERNETES_SERVICE_HOST=10.96.0.1"},
	}
}

func prepare() *kata.Process {
	return &kata.Process{
		Args: []string{"sh", "-c", "echo hi $(GREETING)"},
		Env:  []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GREETING=hi"},
	}
}

type change = func(*kata.CreateContainerRequest)

func app(id string, c ...change) *kata.CreateContainerRequest {
	return request(id, "registry.example/app:1", appProcess(), append([]change{func(m *kata.CreateContainerRequest) {
		m.OCI.Mounts = append(m.OCI.Mounts,
			&kata.Mount{Destination: "/data", Source: shared + id + "/rootfs/local/scratch", Type: "bind", Options: []string{"rbind", "rw"}},
			&kata.Mount{Destination: "/etc/app", Source: copies + "app", Type: "bind", Options: []string{"rbind", "ro"}})
	}}, c...)...)
}

func probe(id string, args ...string) *kata.ExecProcessRequest {
	p := appProcess()
	return &kata.ExecProcessRequest{ContainerId: id, ExecId: "e", Process: &kata.Process{Args: args, User: p.User, Env: p.Env, Cwd: p.Cwd}}
}

func probeWith(id string, change func(*kata.Process)) *kata.ExecProcessRequest {
	m := probe(id, "/app", "--check")
	change(m.Process)
	return m
}

// verdict is the code of the denial, "" when allowed.
func verdict(t *testing.T, p *policy.Policy, msg proto.Message) string {
	t.Helper()
	err := p.Allow(t.Context(), string(msg.ProtoReflect().Descriptor().Name()), msg)
	if err == nil {
		return ""
	}
	var d *agent.Denial
	if !errors.As(err, &d) {
		t.Fatalf("an error that is no denial: %v", err)
	}
	return d.Reason.Code
}

func TestNoLogs(t *testing.T) {
	p := load(t, generate(t, podFile, Options{NoLogs: true}))
	if got := verdict(t, p, &kata.ReadStreamRequest{ContainerId: "a"}); got == "" {
		t.Error("logs are open")
	}
}

func TestGeneratedPolicyJudgesItsPod(t *testing.T) {
	const denied = "policy-denied"
	env := func(entries ...string) change {
		return func(m *kata.CreateContainerRequest) { m.OCI.Process.Env = append(m.OCI.Process.Env, entries...) }
	}
	mount := func(destination, source string, options ...string) change {
		return func(m *kata.CreateContainerRequest) {
			m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: destination, Source: source, Type: "bind", Options: options})
		}
	}
	process := func(f func(*kata.Process)) change {
		return func(m *kata.CreateContainerRequest) { f(m.OCI.Process) }
	}
	spec := func(f func(*kata.Spec)) change { return func(m *kata.CreateContainerRequest) { f(m.OCI) } }
	pause := &kata.Process{Args: []string{"/pause"}, User: &kata.User{UID: 65535, GID: 65535}}
	p := load(t, generate(t, podFile, Options{}))
	for _, r := range []struct {
		name, want string
		msg        proto.Message
	}{
		{"container before the sandbox", denied, app("a")},
		{"hooks directory", denied, &kata.CreateSandboxRequest{GuestHookPath: "/h"}},
		{"shared process namespace", denied, &kata.CreateSandboxRequest{SandboxPidns: true}},
		{"sandbox over the guest", denied, &kata.CreateSandboxRequest{Storages: []*kata.Storage{{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: "/etc"}}}},
		{"sandbox", "", &kata.CreateSandboxRequest{Hostname: "shop"}},
		{"second sandbox", denied, &kata.CreateSandboxRequest{Hostname: "shop"}},
		{"pause", "", request("s", "pause", pause)},
		{"second pause", denied, request("s2", "pause", pause)},
		{"id that is a path", denied, app("../a")},
		{"init container", "", request("i", "docker.io/library/busybox:latest", prepare())},
		{"init container, its reference expanded by the host", denied, request("i2", "busybox", &kata.Process{Args: []string{"sh", "-c", "echo hi hi"}, Env: prepare().Env})},
		{"other image", denied, request("a", "registry.example/app:2", appProcess())},
		{"other argv", denied, app("a", process(func(p *kata.Process) { p.Args = []string{"/app", "--port", "81"} }))},
		{"argv with more", denied, app("a", process(func(p *kata.Process) { p.Args = append(p.Args, "-x") }))},
		{"other directory", denied, app("a", process(func(p *kata.Process) { p.Cwd = "/" }))},
		{"root", denied, app("a", process(func(p *kata.Process) { p.User.UID = 0 }))},
		{"root's group", denied, app("a", process(func(p *kata.Process) { p.User.GID = 0 }))},
		{"root's group beside", denied, app("a", process(func(p *kata.Process) { p.User.AdditionalGids = []uint32{1000, 0} }))},
		{"volume beside the pod's", denied, app("a", func(m *kata.CreateContainerRequest) {
			m.Storages = append(m.Storages, &kata.Storage{Driver: "ephemeral", MountPoint: shared + "a-0123456789abcdef-x/y"})
		})},
		{"user by name", denied, app("a", func(m *kata.CreateContainerRequest) { m.StringUser = &kata.StringUser{Uid: "app"} })},
		{"terminal", denied, app("a", process(func(p *kata.Process) { p.Terminal = true }))},
		{"may gain privileges", denied, app("a", process(func(p *kata.Process) { p.NoNewPrivileges = false }))},
		{"writable root", denied, app("a", spec(func(s *kata.Spec) { s.Root.Readonly = false }))},
		{"dropped capability", denied, app("a", process(func(p *kata.Process) { p.Capabilities.Effective = []string{"CAP_CHOWN"} }))},
		{"no capabilities said", denied, app("a", process(func(p *kata.Process) { p.Capabilities = nil }))},
		{"preloaded library", denied, app("a", env("LD_PRELOAD=/x"))},
		{"the pod's own variable twice", denied, app("a", env("MODE=debug"))},
		{"the image's variable twice", denied, app("a", env("PATH=/data"))},
		{"variable left out", denied, app("a", process(func(p *kata.Process) {
			p.Env = slices.DeleteFunc(p.Env, func(e string) bool { return e == "MODE=pod" })
		}))},
		{"address that is a command", denied, app("a", env("WHERE=$(id)"))},
		{"service variable, links are off", denied, app("a", env("DB_SERVICE_HOST=10.0.0.9"))},
		{"kubernetes variable that is more", denied, app("a", env("KUBERNETES_PORT=x\nLD_PRELOAD=/x"))},
		{"mount nobody asked for", denied, app("a", mount("/app", copies+"app", "rbind", "ro"))},
		{"the guest's files", denied, app("a", mount("/data", "/etc", "rbind"))},
		{"parent in the source", denied, app("a", mount("/data", shared+"a/rootfs/local/../../../x", "rbind"))},
		{"settings, writable in the end", denied, app("a", mount("/etc/app", copies+"app", "rbind", "ro", "rw"))},
		{"settings, writable", denied, app("a", mount("/etc/app", copies+"app", "rbind", "rw"))},
		{"hook", denied, app("a", spec(func(s *kata.Spec) { s.Hooks = &kata.Hooks{Prestart: []*kata.Hook{{Path: "/x"}}} }))},
		{"sysctl", denied, app("a", spec(func(s *kata.Spec) { s.Linux.Sysctl = map[string]string{"kernel.x": "1"} }))},
		{"device", denied, app("a", func(m *kata.CreateContainerRequest) { m.Devices = []*kata.Device{{Id: "x"}} })},
		{"namespace of another", denied, app("a", spec(func(s *kata.Spec) { s.Linux.Namespaces[0].Path = "/proc/1/ns/ipc" }))},
		{"storage of another kind", denied, app("a", func(m *kata.CreateContainerRequest) {
			m.Storages = append(m.Storages, &kata.Storage{Driver: "nvdimm"})
		})},
		{"disk that is not encrypted", denied, app("a", disk("create_filesystem"))},
		{"disk with another key", denied, app("a", disk("create_filesystem", "encryption_key=kbs:///a/b/c"))},
		{"disk that is not new", denied, app("a", disk("encryption_key=ephemeral"))},
		{"no image pulled", denied, app("a", func(m *kata.CreateContainerRequest) { m.Storages = nil })},
		{"probe before its container", denied, probe("a", "/app", "--check")},
		{"app", "", app("a", disk("encryption_key=ephemeral", "create_filesystem"))},
		{"app twice", denied, app("b")},
		{"probe", "", probe("a", "/app", "--check")},
		{"stop hook", "", probe("a", "/app", "--stop")},
		{"shell", denied, probe("a", "/bin/sh")},
		{"probe with more", denied, probe("a", "/app", "--check", "x")},
		{"probe in another container", denied, probe("i", "/app", "--check")},
		{"probe as root", denied, probeWith("a", func(p *kata.Process) { p.User = &kata.User{} })},
		{"probe as root's group", denied, probeWith("a", func(p *kata.Process) { p.User = &kata.User{UID: 1000} })},
		{"probe with root's group beside", denied, probeWith("a", func(p *kata.Process) { p.User.AdditionalGids = []uint32{0} })},
		{"probe with a terminal", denied, probeWith("a", func(p *kata.Process) { p.Terminal = true })},
		{"probe that loads something else", denied, probeWith("a", func(p *kata.Process) { p.Env = append(p.Env, "LD_PRELOAD=/etc/hosts") })},
		{"probe that finds another program", denied, probeWith("a", func(p *kata.Process) { p.Env[0] = "PATH=/data" })},
		{"probe without the pod's variables", denied, probeWith("a", func(p *kata.Process) { p.Env = nil })},
		{"probe in another directory", denied, probeWith("a", func(p *kata.Process) { p.Cwd = "/data" })},
		{"input to one that takes none", denied, &kata.WriteStreamRequest{ContainerId: "a"}},
		{"logs", "", &kata.ReadStreamRequest{ContainerId: "a"}},
		{"file of the pod", "", &kata.CopyFileRequest{Path: copies + "hosts", FileMode: 0o100644}},
		{"file of the guest", denied, &kata.CopyFileRequest{Path: "/usr/bin/casemate", FileMode: 0o100755}},
		{"file beside, by a parent", denied, &kata.CopyFileRequest{Path: copies + "x/../../../y", FileMode: 0o100644}},
		{"link out", denied, &kata.CopyFileRequest{Path: copies + "x/l", FileMode: 0o120777, Data: []byte("/etc")}},
		{"link down", "", &kata.CopyFileRequest{Path: copies + "x/..data", FileMode: 0o120777, Data: []byte("..2026")}},
		{"policy", "policy-silent", &kata.SetPolicyRequest{Policy: "package agent_policy\ndefault ExecProcessRequest := true"}},
		{"remove", "", &kata.RemoveContainerRequest{ContainerId: "a"}},
		{"started again", "", app("c")},
		{"state by id", denied, probe("a", "/app", "--check")},
		{"probe of the new one", "", probe("c", "/app", "--check")},
	} {
		if got := verdict(t, p, r.msg); got != r.want {
			t.Errorf("%s: got %q, want %q", r.name, got, r.want)
		}
	}
}
