# SPDX-License-Identifier: Apache-2.0

# What the host may ask of a guest whose tenant brought no policy. A request that has no rule here is refused:
# ExecProcess, SetPolicy, WriteStream, UpdateContainer, memory, packet filter, clock and entropy among them.
package agent_policy

import rego.v1

# The life of what was created, and what the host observes anyway.
default DestroySandboxRequest := true

default GetOOMEventRequest := true

default GuestDetailsRequest := true

default OnlineCPUMemRequest := true

default ReadStreamRequest := true

default RemoveStaleVirtiofsShareMountsRequest := true

default SignalProcessRequest := true

default StartContainerRequest := true

default StatsContainerRequest := true

default TtyWinResizeRequest := true

default VolumeStatsRequest := true

default WaitProcessRequest := true

# The pod's network is the host's to make; the guest's loopback is not.
default UpdateInterfaceRequest := false

UpdateInterfaceRequest if {
	input.interface.name != "lo"
	input.interface.device != "lo"
	not loopback_address
}

loopback_address if {
	some ip in input.interface.IPAddresses
	is_loopback(ip.address)
}

default UpdateRoutesRequest := false

UpdateRoutesRequest if {
	is_object(input.routes)
	not loopback_route
}

loopback_route if {
	some route in input.routes.Routes
	is_loopback(route.dest)
}

loopback_route if {
	some route in input.routes.Routes
	route.device == "lo"
}

default AddARPNeighborsRequest := false

AddARPNeighborsRequest if {
	is_object(input.neighbors)
	not loopback_neighbor
}

loopback_neighbor if {
	some n in input.neighbors.ARPNeighbors
	n.device == "lo"
}

loopback_neighbor if {
	some n in input.neighbors.ARPNeighbors
	is_loopback(n.toIPAddress.address)
}

# 127.0.0.0/8, also as the end of an IPv6 address in either notation, and ::1.
is_loopback(address) if regex.match(`(^|:)127\.`, address)

is_loopback(address) if regex.match(`^[0:]*:0*1(/|$)`, address)

is_loopback(address) if regex.match(`^[0:]*:ffff:7f[0-9a-f]{2}:`, lower(address))

default CreateSandboxRequest := false

CreateSandboxRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/sandbox", "value": input.sandbox_id}]} if {
	not data.pstate.sandbox
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	input.sandbox_pidns == false
	every storage in input.storages {
		storage.driver == "ephemeral"
		storage.fstype == "tmpfs"
		storage.source == "shm"
		storage.mount_point == "/run/kata-containers/sandbox/shm"
		is_null(storage.fs_group)
	}
}

# The sandbox's own container, once. Its files come from the measured root.
default CreateContainerRequest := false

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/pause", "value": input.container_id}]} if {
	data.pstate.sandbox
	not data.pstate.pause
	is_pause
	input.OCI.Process.Args == ["/pause"]
	every variable in input.OCI.Process.Env {
		startswith(variable, "PATH=/")
	}
	input.OCI.Process.Terminal == false
	input.OCI.Process.NoNewPrivileges == true
	input.OCI.Process.Cwd == "/"
	is_null(input.string_user)
	count(input.devices) == 0
	count(input.shared_mounts) == 0
	confined
	every storage in input.storages {
		pause_storage(storage)
	}
	every mount in input.OCI.Mounts {
		allowed_mount(mount)
	}
}

# A container of an image. What it runs is not judged here: once the image is there and verified, the guest compares
# command, environment, working directory and user with the image's own config.
CreateContainerRequest if {
	data.pstate.sandbox
	data.pstate.pause
	not is_pause
	is_null(input.string_user)
	count(input.devices) == 0
	count(input.shared_mounts) == 0
	confined
	one_image
	every mount in input.OCI.Mounts {
		allowed_mount(mount)
	}
}

pause_storage(storage) if {
	storage.driver == "image_guest_pull"
	storage.source == "pause"
}

pause_storage(storage) if host_layer(storage)

# One image that the guest pulls.
one_image if {
	[storage | some storage in input.storages] == [image | some image in input.storages; image.driver == "image_guest_pull"; image.source != "pause"]
	count(input.storages) == 1
}

# One image whose layers the host has plugged in. The guest finds out from the image's signed manifest what they must be.
one_image if {
	count(input.storages) > 0
	every storage in input.storages {
		host_layer(storage)
	}
}

host_layer(storage) if storage.driver == "erofs.multi-layer"

host_layer(storage) if "X-kata.multi-layer=true" in storage.options

is_pause if input.OCI.Annotations["io.kubernetes.cri.container-type"] == "sandbox"

is_pause if input.OCI.Annotations["io.kubernetes.cri-o.ContainerType"] == "sandbox"

confined if {
	input.sandbox_pidns == false
	is_object(input.OCI.Process.Capabilities)
	no_hooks
	count(input.OCI.Linux.Sysctl) == 0
	count(input.OCI.Linux.Devices) == 0
	every key, _ in input.OCI.Annotations {
		not startswith(key, "cdi.k8s.io/")
	}
	input.OCI.Linux.RootfsPropagation in {"", "private", "rprivate"}
	every set in ["Bounding", "Effective", "Inheritable", "Permitted", "Ambient"] {
		every capability in input.OCI.Process.Capabilities[set] {
			capability in default_capabilities
		}
	}
	every namespace in input.OCI.Linux.Namespaces {
		allowed_namespace(namespace)
	}
	# Whether named or not, the guest makes each of the container's own but the network's.
	kinds := {namespace.Type | some namespace in input.OCI.Linux.Namespaces}
	kinds - {"mount", "ipc", "pid", "uts", "network", "cgroup"} == set()
}

allowed_namespace(namespace) if namespace.Path == ""

# A peer pod's forwarder names the pod's network, which the guest compares with the one that it was measured with.
allowed_namespace(namespace) if namespace.Type == "network"

no_hooks if is_null(input.OCI.Hooks)

no_hooks if {
	every kind in ["Prestart", "Poststart", "Poststop", "CreateRuntime", "CreateContainer", "StartContainer"] {
		count(input.OCI.Hooks[kind]) == 0
	}
}

default_capabilities := {
	"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
	"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
}

# The file systems that every container has, and copied content at its usual places only.
allowed_mount(mount) if {
	some want in [
		["/proc", "proc", "proc"], ["/dev", "tmpfs", "tmpfs"], ["/dev/pts", "devpts", "devpts"],
		["/dev/mqueue", "mqueue", "mqueue"], ["/sys", "sysfs", "sysfs"], ["/sys/fs/cgroup", "cgroup", "cgroup"],
	]
	[mount.destination, mount.type_, mount.source] == want
}

allowed_mount(mount) if {
	mount.destination == "/dev/shm"
	mount.type_ == "bind"
	mount.source == "/run/kata-containers/sandbox/shm"
}

allowed_mount(mount) if {
	mount.type_ == "bind"
	some name, destination in {
		"resolv.conf": "/etc/resolv.conf", "hosts": "/etc/hosts", "hostname": "/etc/hostname",
		"termination-log": "/dev/termination-log", "serviceaccount": "/var/run/secrets/kubernetes.io/serviceaccount",
	}
	mount.destination == destination
	regex.match(concat("", [shared_directory, `[^/]*$`]), mount.source)
	endswith(mount.source, concat("", ["-", name]))
	no_parent(mount.source)
}

default RemoveContainerRequest := false

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/pause"}]} if {
	data.pstate.pause == input.container_id
}

RemoveContainerRequest if not data.pstate.pause == input.container_id

# Copied content lands in a directory that is named after the container, and a link stays inside what was copied.
shared_directory := `^/run/kata-containers/shared/containers(?:/passthrough)?/(?:watchable/)?[a-z0-9]{64}-[a-f0-9]{16}-`

no_parent(path) if not regex.match(`(^|/)\.\.(/|$)`, path)

in_shared(path) if {
	regex.match(concat("", [shared_directory, `[^/]+(/.*)?$`]), path)
	no_parent(path)
	not regex.match(`[\x00\n]|//|/\.(/|$)`, path)
}

default CopyFileRequest := false

# Measured configuration makes this true (agent.strict): then nothing is copied at all.
strict := false

CopyFileRequest if {
	not strict
	in_shared(input.path)
	input.file_type in {"Regular", "Directory"}
	bits.and(input.file_mode, 3072) == 0 # neither set-user-id nor set-group-id
}

CopyFileRequest if {
	not strict
	in_shared(input.path)
	input.file_type == "Symlink"
	regex.match(concat("", [shared_directory, `[^/]+/.+`]), input.path) # not the top of what is copied
	input.symlink_target != ""
	not startswith(input.symlink_target, "/")
	no_parent(input.symlink_target)
	not contains(input.symlink_target, "\u0000")
}
