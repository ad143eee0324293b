# SPDX-License-Identifier: Apache-2.0
# The pod of package replay, by hand: what a tenant writes who does without a generator. Container ids are keys of the
# state, each with its container's place in the list.
package agent_policy

import rego.v1

default AddARPNeighborsRequest := true

default CopyFileRequest := false

default CreateContainerRequest := false

default CreateSandboxRequest := false

default DestroySandboxRequest := true

default ExecProcessRequest := false

default GetDiagnosticDataRequest := true

default GetOOMEventRequest := true

default GuestDetailsRequest := true

default OnlineCPUMemRequest := true

default ReadStreamRequest := true

default RemoveContainerRequest := true

default RemoveStaleVirtiofsShareMountsRequest := true

default SignalProcessRequest := true

default StartContainerRequest := true

default StatsContainerRequest := true

default UpdateContainerRequest := true

default UpdateInterfaceRequest := true

default UpdateRoutesRequest := true

default WaitProcessRequest := true

CreateSandboxRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/sandbox", "value": input.sandbox_id}]} if {
	not data.pstate.sandbox
	[input.guest_hook_path, input.kernel_modules, input.sandbox_pidns] == ["", [], false]
	every s in input.storages {
		[s.driver, s.fstype, s.mount_point] == ["ephemeral", "tmpfs", "/run/kata-containers/sandbox/shm"]
	}
}

key := concat("/", ["/pstate", input.container_id])

used(i) if {
	some k, v in data.pstate
	k != "sandbox"
	v == i
}

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": key, "value": i}]} if {
	data.pstate.sandbox
	regex.match(`^[0-9a-f]{64}$`, input.container_id)
	some i, want in shop.containers
	not used(i)
	annotated(want)
	process(want, input.OCI.Process)
	given := [input.sandbox_pidns, input.devices, input.shared_mounts, input.string_user, input.OCI.Linux.Sysctl, input.OCI.Linux.Devices]
	given == [false, [], [], null, {}, []]
	hookless
	every name, _ in input.OCI.Annotations {
		not startswith(name, "cdi.k8s.io/")
	}
	input.OCI.Linux.RootfsPropagation in {"", "rprivate"}
	every n in input.OCI.Linux.Namespaces {
		namespace(n)
	}
	[s.source | some s in input.storages; s.driver == "image_guest_pull"] == [want.image]
	every s in input.storages {
		storage(s)
	}
	every m in input.OCI.Mounts {
		mount(want, m)
	}
}

namespace(n) if {
	n.Path == ""
	n.Type in {"pid", "ipc", "uts", "mount", "cgroup"}
}

# As a peer pod.
namespace(n) if [n.Type, n.Path] == ["network", "/run/netns/podns"]

annotated(want) if {
	kinds := {input.OCI.Annotations[k] | some k in ["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]}
	kinds == {want.kind}
}

hookless if is_null(input.OCI.Hooks)

hookless if {
	every list in input.OCI.Hooks {
		list == []
	}
}

storage(s) if s.driver == "image_guest_pull"

storage(s) if [s.driver, s.fstype, s.mount_point] == ["ephemeral", "tmpfs", "/run/kata-containers/sandbox/ephemeral/scratch"]

process(want, p) if {
	[p.Args, p.Cwd, p.Terminal] == [want.args, want.cwd, false]
	user(want, p.User)
	variables(want, p.Env)
	is_object(p.Capabilities)
	every set in ["Bounding", "Effective", "Permitted", "Inheritable", "Ambient"] {
		every c in p.Capabilities[set] {
			c in shop.capabilities
		}
	}
	not ambient(p)
}

ambient(p) if count(p.Capabilities.Ambient) > 0

user(want, u) if {
	[u.UID, u.GID] == [want.id, want.id]
	every g in u.AdditionalGids {
		g == want.id
	}
}

variables(want, env) if {
	every e in want.env {
		e in env
	}
	every e in env {
		variable(want, e)
	}
}

variable(want, e) if e in want.env

variable(_, e) if regex.match(`^(HOSTNAME=shop|KUBERNETES_(SERVICE|PORT)_?[A-Z0-9_]*=[a-z0-9.:/]*)$`, e)

mount(_, m) if [m.destination, m.type_, m.source] in shop.kernel

mount(want, m) if {
	m.type_ == "bind"
	some destination, name in want.files
	m.destination == destination
	regex.match(concat("", [`^/run/kata-containers/shared/containers/[0-9a-f]{64}-[0-9a-f]{16}-`, name, `$`]), m.source)
	access(destination, m.options)
}

access(destination, options) if {
	destination == "/srv/app.conf"
	"ro" in options
	not "rw" in options
}

access(destination, _) if destination != "/srv/app.conf"

mount(want, m) if {
	want.scratch
	[m.destination, m.type_, m.source] == ["/data", "bind", "/run/kata-containers/sandbox/ephemeral/scratch"]
}

# As a peer pod, where a disk may stand in for memory.
mount(want, m) if {
	want.scratch
	[m.destination, m.type_, m.source] == ["/data", "bind", "/run/cloud-volumes/scratch"]
}

ExecProcessRequest if {
	i := data.pstate[input.container_id]
	is_number(i)
	want := shop.containers[i]
	p := input.process
	p.Args in want.exec
	[p.Cwd, p.Terminal, p.SelinuxLabel, input.string_user] == [want.cwd, false, "", null]
	user(want, p.User)
	variables(want, p.Env)
	every set in ["Bounding", "Effective", "Permitted", "Inheritable", "Ambient"] {
		every c in p.Capabilities[set] {
			c in shop.capabilities
		}
	}
}

CopyFileRequest if {
	beneath
	input.file_type in {"Regular", "Directory"}
}

CopyFileRequest if {
	beneath
	input.file_type == "Symlink"
	regex.match(`^/run/kata-containers/shared/containers/[^/]+/`, input.path)
	not regex.match(`^/|(^|/)\.\.(/|$)`, input.symlink_target)
}

beneath if {
	regex.match(`^/run/kata-containers/shared/containers/[0-9a-f]{64}-[0-9a-f]{16}-[^/]+(/.+)?$`, input.path)
	not regex.match(`(^|/)\.\.(/|$)`, input.path)
}

shop := {
	"capabilities": [
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD", "CAP_NET_BIND_SERVICE",
		"CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	],
	"kernel": [
		["/proc", "proc", "proc"], ["/dev", "tmpfs", "tmpfs"], ["/dev/pts", "devpts", "devpts"], ["/dev/mqueue", "mqueue", "mqueue"],
		["/sys", "sysfs", "sysfs"], ["/sys/fs/cgroup", "cgroup", "cgroup"], ["/dev/shm", "bind", "/run/kata-containers/sandbox/shm"],
	],
	"containers": [
		{
			"kind": "sandbox", "image": "pause", "args": ["/pause"], "cwd": "/", "id": 65535, "exec": [], "scratch": false,
			"env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "files": {"/etc/resolv.conf": "resolv.conf"},
		},
		{
			"kind": "container", "image": "docker.io/library/busybox:latest", "args": ["sh", "-c", "echo ready > /data/state"], "cwd": "/", "id": 0,
			"exec": [], "scratch": true, "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
			"files": {
				"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf", "/dev/termination-log": "termination-log",
				"/var/run/secrets/kubernetes.io/serviceaccount": "serviceaccount",
			},
		},
		{
			"kind": "container", "image": "registry.example/app:1", "args": ["/app", "--serve"], "cwd": "/srv", "id": 1000,
			"exec": [["/app", "--check"], ["/app", "--stop"]], "scratch": true, "env": ["PATH=/usr/bin:/bin", "MODE=pod", "WHERE=10.244.0.5"],
			"files": {
				"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf", "/dev/termination-log": "termination-log",
				"/var/run/secrets/kubernetes.io/serviceaccount": "serviceaccount", "/etc/app": "app", "/srv/app.conf": "app\\.conf",
			},
		},
		{
			"kind": "container", "image": "registry.example/plain:1", "args": ["/plain"], "cwd": "/", "id": 33, "exec": [], "scratch": false,
			"env": ["PATH=/bin"],
			"files": {
				"/etc/hosts": "hosts", "/etc/hostname": "hostname", "/etc/resolv.conf": "resolv.conf", "/dev/termination-log": "termination-log",
				"/var/run/secrets/kubernetes.io/serviceaccount": "serviceaccount",
			},
		},
	],
}
