# SPDX-License-Identifier: Apache-2.0

# What the host may ask of the guest of one pod. The pod itself is in policy_data, at the end. A request that has no
# rule here is refused.
package agent_policy

import rego.v1

default DestroySandboxRequest := true

default GetDiagnosticDataRequest := true

default GetOOMEventRequest := true

default GuestDetailsRequest := true

default OnlineCPUMemRequest := true

default RemoveStaleVirtiofsShareMountsRequest := true

default SignalProcessRequest := true

default StartContainerRequest := true

default StatsContainerRequest := true

default UpdateContainerRequest := true

default VolumeStatsRequest := true

default WaitProcessRequest := true

# Loopback is refused by the agent itself, whatever a policy says.
default UpdateInterfaceRequest := true

default UpdateRoutesRequest := true

default AddARPNeighborsRequest := true

default ReadStreamRequest := false

ReadStreamRequest if policy_data.logs

# The pod's state: that there is a sandbox, and which container of the pod file each id is.

default CreateSandboxRequest := false

CreateSandboxRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/sandbox", "value": true}]} if {
	not data.pstate.sandbox
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	input.sandbox_pidns == false
	every storage in input.storages {
		storage.driver == "ephemeral"
		storage.fstype == "tmpfs"
		storage.mount_point == "/run/kata-containers/sandbox/shm"
		is_null(storage.fs_group)
	}
}

# A container has a key of its own: what one request adds is taken back alone when it fails.
state_of(id) := concat("", ["container:", id])

running(key) if {
	some id, container in data.pstate
	startswith(id, "container:")
	container.key == key
}

# A file may have several pods, and a guest is one of them.
another_pod(c) if {
	some other in policy_data.containers
	other.pod != c.pod
	running(other.key)
}

# A container id is a name, so that it is one key of the state.
plain(id) if regex.match(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`, id)

default CreateContainerRequest := false

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["/pstate", state_of(input.container_id)]), "value": {"key": "/pause", "volumes": {}}}]} if {
	plain(input.container_id)
	data.pstate.sandbox
	not running("/pause")
	is_pause
	pause_program
	is_null(input.string_user)
	confined(pause_capabilities, [])
	count(input.devices) == 0
	count(input.shared_mounts) == 0
	every mount in input.OCI.Mounts {
		allowed_mount(mount, [])
	}
}

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("/", ["/pstate", state_of(input.container_id)]), "value": {"key": c.key, "volumes": {name: source | some [name, source] in volumes_in(c)}}}]} if {
	plain(input.container_id)
	data.pstate.sandbox
	not is_pause
	matches := [candidate |
		some candidate in policy_data.containers
		not running(candidate.key)
		not another_pod(candidate)
		is_container(candidate)
	]
	c := matches[0]
}

default RemoveContainerRequest := true

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["/pstate", state_of(input.container_id)])}]} if {
	plain(input.container_id)
	data.pstate[state_of(input.container_id)]
}

is_pause if input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"

is_pause if input.OCI.Annotations["io.kubernetes.cri-o.ContainerType"] == "sandbox"

# The pod file does not say what it runs, and the guest has the program itself. A request that brought an image under
# this name would have any command of the host's.
pause_program if {
	input.OCI.Process.Args == ["/pause"]
	input.OCI.Process.Cwd == "/"
	input.OCI.Process.Terminal == false
	every variable in input.OCI.Process.Env {
		startswith(variable, "PATH=/")
	}
	every storage in input.storages {
		storage.driver == "image_guest_pull"
		storage.source == "pause"
	}
}

pause_capabilities := {
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

is_container(c) if {
	image_of(c)
	process_of(c)
	confined({name | some name in c.capabilities}, c.devices)
	root_of(c)
	every mount in input.OCI.Mounts {
		allowed_mount(mount, c.mounts)
	}
	every volume in volumes_in(c) {
		not elsewhere(volume)
		every other in volumes_in(c) {
			same_volume(volume, other)
		}
	}
}

# Where the request has the pod's emptyDirs, as pairs of name and source.
volumes_in(c) := {[own.volume, mount.source] |
	some mount in input.OCI.Mounts
	some own in c.mounts
	own.volume != ""
	mount.destination == own.destination
	mount.source != sandbox_shm
}

# One for the pod: a runtime may have it in the place of any volume on /dev/shm.
sandbox_shm := "/run/kata-containers/sandbox/shm"

# What the pod's containers have of one another is what the file says: one emptyDir is one directory, two are two.
elsewhere(volume) if {
	some id, container in data.pstate
	startswith(id, "container:")
	some name, source in container.volumes
	not same_volume(volume, [name, source])
}

same_volume(a, b) if {
	a[0] == b[0]
	a[1] == b[1]
}

same_volume(a, b) if {
	a[0] != b[0]
	a[1] != b[1]
}

image_of(c) if {
	pulls := [storage | some storage in input.storages; storage.driver == "image_guest_pull"]
	count(pulls) == 1
	pulls[0].source in c.images
	every storage in input.storages {
		storage_of(storage)
	}
	[path | some path in c.devices] == [path | some path in c.devices; device_of(path)]
	count(input.devices) == count(c.devices)
	count(input.shared_mounts) == 0
}

# A disk for each of the pod's volumeDevices. Which volume a path means is measured configuration's to say, and the
# agent refuses one that it does not name.
device_of(path) if {
	some device in input.devices
	device.container_path == path
	device.type_ in {"blk", "mmioblk"}
}

storage_of(storage) if storage.driver == "image_guest_pull"

storage_of(storage) if {
	storage.driver == "ephemeral"
	regex.match(`^/run/kata-containers/sandbox/(ephemeral|storage)/[A-Za-z0-9_=.-]+$`, storage.mount_point)
	no_parent(storage.mount_point)
}

storage_of(storage) if {
	storage.driver == "local"
	regex.match(`^/run/kata-containers/shared/containers/[A-Za-z0-9_.-]+/rootfs/local/[A-Za-z0-9_.-]+$`, storage.mount_point)
	no_parent(storage.mount_point)
}

# An emptyDir on a disk of its own, which the guest encrypts.
storage_of(storage) if {
	storage.driver in {"blk", "scsi", "mmioblk"}
	{option | some option in storage.driver_options} == {"create_filesystem", "encryption_key=ephemeral"}
	regex.match(`^/run/kata-containers/sandbox/storage/[A-Za-z0-9_=-]+$`, storage.mount_point)
}

process_of(c) if {
	process := input.OCI.Process
	process.Args == c.args
	process.Terminal == c.terminal
	new_privileges(c, process.NoNewPrivileges)
	surroundings_of(c, process)
}

# What a program finds when it starts: the container's own, and the same for a probe, which could otherwise be made to
# load or run something else.
surroundings_of(c, process) if {
	process.Cwd == c.cwd
	process.SelinuxLabel == ""
	user_of(c, process.User)
	every entry in process.Env {
		variable_of(c, entry)
	}
	# One that is left out is as good as one that is changed.
	every entry in c.env {
		entry in process.Env
	}
}

user_of(c, user) if {
	c.user == ""
	is_null(input.string_user)
	user.UID == c.uid
	group_of(c, user.GID)
	every group in user.AdditionalGids {
		further_group(c, user, group)
	}
}

# A user by name is looked up in the image by the agent, and the numbers beside the name count for nothing.
user_of(c, _) if {
	c.user != ""
	input.string_user.uid == c.user
	input.string_user.gid == c.group
	count(input.string_user.additionalGids) == 0
}

further_group(_, user, group) if group == user.GID

further_group(c, _, group) if group in c.groups

# This one can give itself any group.
further_group(c, user, _) if {
	user.UID == 0
	"CAP_SETGID" in c.capabilities
}

group_of(c, _) if is_null(c.gid)

group_of(c, gid) if c.gid == gid

new_privileges(c, _) if not c.no_new_privileges

new_privileges(_, set) if set

variable_of(c, entry) if entry in c.env

variable_of(c, entry) if {
	some pattern in c.env_patterns
	regex.match(pattern, entry)
	not named(c, entry)
}

# A pattern does not give a second value to a variable that the pod sets.
named(c, entry) if {
	name := split(entry, "=")[0]
	some own in c.env
	split(own, "=")[0] == name
}

root_of(c) if not c.readonly_root

root_of(_) if input.OCI.Root.Readonly

confined(capabilities, devices) if {
	input.sandbox_pidns == false
	is_object(input.OCI.Process.Capabilities)
	no_hooks
	count(input.OCI.Linux.Sysctl) == 0
	every device in input.OCI.Linux.Devices {
		device.Path in devices
		device.Type == "b"
	}
	every key, _ in input.OCI.Annotations {
		not startswith(key, "cdi.k8s.io/")
	}
	input.OCI.Linux.RootfsPropagation in {"", "private", "rprivate", "slave", "rslave"}
	every set in ["Bounding", "Effective", "Inheritable", "Permitted", "Ambient"] {
		every capability in input.OCI.Process.Capabilities[set] {
			capability in capabilities
		}
	}
	every namespace in input.OCI.Linux.Namespaces {
		allowed_namespace(namespace)
	}
}

allowed_namespace(namespace) if {
	namespace.Path == ""
	namespace.Type in {"mount", "ipc", "pid", "uts", "network", "cgroup"}
}

# A peer pod's forwarder names the pod's network, which the guest compares with the one that it was measured with.
allowed_namespace(namespace) if namespace.Type == "network"

no_hooks if is_null(input.OCI.Hooks)

no_hooks if {
	every kind in ["Prestart", "Poststart", "Poststop", "CreateRuntime", "CreateContainer", "StartContainer"] {
		count(input.OCI.Hooks[kind]) == 0
	}
}

allowed_mount(mount, _) if {
	some want in [
		["/proc", "proc", "proc"], ["/dev", "tmpfs", "tmpfs"], ["/dev/pts", "devpts", "devpts"],
		["/dev/mqueue", "mqueue", "mqueue"], ["/sys", "sysfs", "sysfs"], ["/sys/fs/cgroup", "cgroup", "cgroup"],
	]
	[mount.destination, mount.type_, mount.source] == want
}

allowed_mount(mount, _) if {
	mount.destination == "/dev/shm"
	mount.type_ == "bind"
	mount.source == "/run/kata-containers/sandbox/shm"
}

allowed_mount(mount, own) if {
	mount.type_ == "bind"
	some m in own
	mount.destination == m.destination
	no_parent(mount.source)
	regex.match(m.source, mount.source)
	access(m, mount.options)
}

# The pause container reads the pod's own files.
allowed_mount(mount, []) if {
	mount.type_ == "bind"
	some name in ["hosts", "hostname", "resolv.conf"]
	mount.destination == concat("/", ["/etc", name])
	no_parent(mount.source)
	regex.match(`^/run/kata-containers/shared/containers/(passthrough/)?[A-Za-z0-9][A-Za-z0-9_.-]*-[a-f0-9]{16}-[^/]+$`, mount.source)
	endswith(mount.source, concat("", ["-", name]))
}

access(m, _) if not m.readonly

# Of two words the runtime takes the last.
access(_, options) if {
	"ro" in options
	count({"rw", "rrw"} & {option | some option in options}) == 0
}

no_parent(path) if not regex.match(`(^|/)\.\.(/|$)|//`, path)

# Probes and hooks, by the container's place in the pod file.
default ExecProcessRequest := false

ExecProcessRequest if {
	some c in policy_data.containers
	c.key == data.pstate[state_of(input.container_id)].key
	input.process.Args in c.exec
	input.process.Terminal == false
	surroundings_of(c, input.process)
	no_more_capabilities(c)
}

no_more_capabilities(_) if is_null(input.process.Capabilities)

no_more_capabilities(c) if {
	every set in ["Bounding", "Effective", "Inheritable", "Permitted", "Ambient"] {
		every capability in input.process.Capabilities[set] {
			capability in c.capabilities
		}
	}
}

default WriteStreamRequest := false

WriteStreamRequest if interactive(input.container_id)

default CloseStdinRequest := true

default TtyWinResizeRequest := true

interactive(id) if {
	some c in policy_data.containers
	c.key == data.pstate[state_of(id)].key
	c.stdin
}

# Copies land in the pod's own directory; links only inside of a copied tree, and only downwards. The agent holds
# both in code as well.
default CopyFileRequest := false

in_shared(path) if {
	regex.match(`^/run/kata-containers/shared/containers/(passthrough/)?(watchable/)?[A-Za-z0-9][A-Za-z0-9_.-]*-[a-f0-9]{16}-[^/]+(/.*)?$`, path)
	no_parent(path)
}

CopyFileRequest if {
	in_shared(input.path)
	input.file_type in {"Regular", "Directory"}
}

CopyFileRequest if {
	in_shared(input.path)
	input.file_type == "Symlink"
	regex.match(`^/run/kata-containers/shared/containers/(passthrough/)?(watchable/)?[^/]+/.+`, input.path)
	not startswith(input.symlink_target, "/")
	no_parent(input.symlink_target)
}
