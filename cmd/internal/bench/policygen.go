// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/casemate/casemate/agent/api/kata"
)

const (
	benchContainers = 3
	benchMounts     = 30
	benchEnv        = 50
	// policySize is about what kata's generator makes of a pod with three containers.
	policySize = 60 << 10
	benchID    = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"
)

// policyRules has the shape of generated rules: every container of policy_data is tried, every mount and variable of
// the request is sought among the container's, by regular expressions where they are not constant.
const policyRules = `package agent_policy

import future.keywords.every
import future.keywords.if
import future.keywords.in

default AllowRequestsFailingPolicy := false

default CreateContainerRequest := false

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	some index, wanted in policy_data.containers
	print("trying container", index)
	not data.pstate[input.container_id]
	is_null(input.string_user)
	process_matches(wanted.OCI.Process, input.OCI.Process)
	every mount in input.OCI.Mounts {
		some candidate in wanted.OCI.Mounts
		mount_matches(candidate, mount)
	}
	every storage in input.storages {
		storage.driver in policy_data.common.drivers
	}
	details_match(wanted, input)
	ops := [{"op": "add", "path": concat("/", ["", "pstate", input.container_id]), "value": index}]
}

process_matches(wanted, given) if {
	wanted.Args == given.Args
	wanted.Cwd == given.Cwd
	wanted.User.UID == given.User.UID
	every variable in given.Env {
		variable_matches(wanted, variable)
	}
	every capability in given.Capabilities.Effective {
		capability in policy_data.common.capabilities
	}
}

variable_matches(wanted, variable) if variable in wanted.Env

variable_matches(_, variable) if {
	some pattern in policy_data.common.variables
	regex.match(pattern, variable)
}

mount_matches(wanted, given) if {
	wanted.destination == given.destination
	wanted.type_ == given.type_
	wanted.options == given.options
	source := replace(wanted.source, "$(prefix)", policy_data.common.prefix)
	regex.match(replace(source, "$(id)", input.container_id), given.source)
}

`

// generatePolicy returns about policySize bytes: the rules above, a chain of further checks, and the data.
func generatePolicy() ([]byte, error) {
	type object = map[string]any
	var containers []object
	for c := range benchContainers {
		var mounts, env []any
		for i := range benchMounts {
			mounts = append(mounts, object{
				"destination": fmt.Sprintf("/mnt/volume-%d", i), "type_": "bind", "options": []string{"rbind", "rprivate", "ro"},
				"source": fmt.Sprintf("^$(prefix)$(id)-[a-z0-9]{16}-volume-%d$", i),
			})
		}
		for i := range benchEnv {
			env = append(env, fmt.Sprintf("SETTING_%d=value-%d-of-an-ordinary-length", i, i))
		}
		containers = append(containers, object{
			"OCI": object{"Process": object{"Args": []string{"/app", fmt.Sprint(c)}, "Cwd": "/", "User": object{"UID": 1000}, "Env": env}, "Mounts": mounts},
		})
	}
	data, err := json.MarshalIndent(object{
		"containers": containers,
		"common": object{
			"prefix": "/run/kata-containers/shared/containers/", "drivers": []string{"image_guest_pull"}, "capabilities": []string{"CAP_CHOWN", "CAP_KILL"},
			"variables": []string{"^HOSTNAME=[a-z0-9-]+$", "^KUBERNETES_[A-Z0-9_]+=.*$", "^[A-Z0-9_]+_SERVICE_HOST=[0-9.]+$", "^[A-Z0-9_]+_SERVICE_PORT=[0-9]+$"},
		},
	}, "", " ")
	if err != nil {
		return nil, err
	}
	var rules, calls, others strings.Builder
	for n := 0; len(policyRules)+rules.Len()+calls.Len()+others.Len()+len(data) < policySize; n++ {
		fmt.Fprintf(&rules, "detail_%[1]d(wanted, given) if {\n\tprint(\"detail %[1]d of\", given.container_id)\n\tcount(given.devices) <= %[1]d\n\tnot given.OCI.Annotations[\"example.org/forbidden-%[1]d\"]\n"+
			"\tevery namespace in given.OCI.Linux.Namespaces {\n\t\tnamespace.Path == \"\"\n\t}\n\tis_object(wanted.OCI)\n}\n\n", n)
		// A generated policy checks seven kinds of requests: half of its rules are CreateContainer's, the rest is
		// loaded and not asked.
		if n%2 == 0 {
			fmt.Fprintf(&calls, "\tdetail_%d(wanted, given)\n", n)
		} else {
			fmt.Fprintf(&others, "\tdetail_%d(policy_data.containers[0], input)\n", n)
		}
	}
	return []byte(policyRules + rules.String() + "details_match(wanted, given) if {\n" + calls.String() + "}\n\nExecProcessRequest if {\n" + others.String() + "}\n\npolicy_data := " + string(data) + "\n"), nil
}

// benchCreate asks for the last container of the policy; denied makes the source of the last mount another.
func benchCreate(denied bool) *kata.CreateContainerRequest { return benchCreateAs(benchID, denied) }

func benchCreateAs(id string, denied bool) *kata.CreateContainerRequest {
	process := &kata.Process{
		Args: []string{"/app", fmt.Sprint(benchContainers - 1)}, Cwd: "/", User: &kata.User{UID: 1000},
		Capabilities: &kata.LinuxCapabilities{Effective: []string{"CAP_CHOWN", "CAP_KILL"}},
	}
	for i := range benchEnv {
		process.Env = append(process.Env, fmt.Sprintf("SETTING_%d=value-%d-of-an-ordinary-length", i, i))
	}
	// Half of the variables are those that Kubernetes sets, which patterns allow.
	for i := range benchEnv / 2 {
		process.Env[i] = fmt.Sprintf("NAME_%d_SERVICE_HOST=10.0.0.%d", i, i)
	}
	m := &kata.CreateContainerRequest{
		ContainerId: id, ExecId: id, Storages: []*kata.Storage{{Driver: "image_guest_pull", Source: "registry.example/app:1"}},
		OCI: &kata.Spec{Version: "1.1.0", Process: process, Linux: &kata.Linux{Namespaces: []*kata.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "ipc"}, {Type: "uts"}}}},
	}
	for i := range benchMounts {
		m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{
			Destination: fmt.Sprintf("/mnt/volume-%d", i), Type: "bind", Options: []string{"rbind", "rprivate", "ro"},
			Source: fmt.Sprintf("/run/kata-containers/shared/containers/%s-0123456789abcdef-volume-%d", id, i),
		})
	}
	if denied {
		last := m.OCI.Mounts[benchMounts-1]
		last.Source = "/etc"
	}
	return m
}
