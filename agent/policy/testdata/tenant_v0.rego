# SPDX-License-Identifier: Apache-2.0
# A policy in the manner of generated ones: rules over policy_data, state patches, prints, Rego v0 only.
package agent_policy

import future.keywords.every
import future.keywords.in

default AllowRequestsFailingPolicy := false

default CloseStdinRequest := false

default CopyFileRequest := false

default CreateContainerRequest := false

default CreateSandboxRequest := false

default DestroySandboxRequest := true

default ExecProcessRequest := false

default ReadStreamRequest := true

default RemoveContainerRequest := false

default SetPolicyRequest := false

default SignalProcessRequest := true

default StartContainerRequest := false

default UpdateInterfaceRequest := false

default WriteStreamRequest := false

CreateSandboxRequest := {"allowed": true, "ops": ops} {
	print("sandbox asked for:", input.sandbox_id)
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	is_array(input.storages)
	not data.pstate.sandbox_name
	ops := array.concat([{"op": "add", "path": "/pstate/sandbox_name", "value": input.hostname}], [])
}

CreateContainerRequest := {"allowed": true, "ops": ops} {
	is_null(input.string_user)
	some i, want in policy_data.containers
	print("trying container", i)
	not taken(i)
	input.OCI.Process.Args == want.args
	every variable in input.OCI.Process.Env {
		allowed_variable(variable, want)
	}
	count(input.OCI.Linux.GIDMappings) == 0
	is_null(input.OCI.Hooks)
	every mount in input.OCI.Mounts {
		[mount.destination, mount.type_] in want.mounts
	}
	ops := [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": i}]
}

taken(i) {
	some key, value in data.pstate
	value == i
}

allowed_variable(variable, want) { variable in want.env }

allowed_variable(variable, _) {
	some pattern in policy_data.common.env_patterns
	regex.match(pattern, variable)
}

known(id) { is_number(data.pstate[id]) }

StartContainerRequest { known(input.container_id) }

RemoveContainerRequest := {"allowed": true, "ops": [{"op": "remove", "path": concat("/", ["", "pstate", input.container_id])}]} {
	known(input.container_id)
}

ExecProcessRequest {
	i := data.pstate[input.container_id]
	input.process.Args in policy_data.containers[i].exec_commands
	count(input.process.Capabilities.Effective) == 0
}

# A key that policy_data has not: undefined, thereby refused.
CloseStdinRequest { policy_data.request_defaults.CloseStdinRequest }

WriteStreamRequest {
	input.data == [104, 105]
	policy_data.common.stdin
}

CopyFileRequest {
	regex.match(policy_data.common.copy_path, input.path)
	not regex.match("(^|/)\\.\\.(/|$)", input.path)
	input.file_type in ["Regular", "Directory"]
}

CopyFileRequest {
	input.file_type == "Symlink"
	input.symlink_target == "..data/token"
}

UpdateInterfaceRequest {
	input.interface.type_ == "veth"
	input.interface.IPAddresses[0].family == 0
	bits.and(input.interface.raw_flags, 128) == 0
	input.interface.mtu <= 18446744073709551615
}

policy_data := {
	"common": {
		"env_patterns": ["^KUBERNETES_[A-Z0-9_]+=", "^HOSTNAME=[a-z0-9-]+$"],
		"copy_path": "^/run/kata-containers/shared/containers/[a-z0-9]{64}-[a-z0-9]{16}-",
		"stdin": true
	},
	"containers": [
		{"args": ["/pause"], "env": ["PATH=/bin"], "mounts": [["/proc", "proc"]], "exec_commands": []},
		{"args": ["/app", "--serve"], "env": ["PATH=/bin", "MODE=x"], "mounts": [["/proc", "proc"], ["/etc/hosts", "bind"]],
			"exec_commands": [["/app", "--probe"]]}
	]
}
