// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/casemate/casemate/agent/policy/replay"
)

// corpus are the images of the replayed pod.
func corpus() catalogue {
	list := catalogue{}
	for reference, img := range replay.Images() {
		list[reference] = &ImageConfig{
			Digest: "sha256:00", Entrypoint: img.Entrypoint, Cmd: img.Cmd, Env: img.Env, WorkingDir: img.WorkingDir,
		}
		if img.UID != 0 {
			list[reference].User = fmt.Sprintf("%d:%d", img.UID, img.GID)
		}
	}
	return list
}

// TestReplay judges the corpus by the policy that is generated of its pod file.
func TestReplay(t *testing.T) {
	generated, err := Generate(t.Context(), []byte(replay.PodFile), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, s := range replay.Stacks() {
		for name, steps := range map[string][]replay.Step{"life": s.Life(), "attacks": s.Attacks(), "peer": replay.Forward(s.Life()), "forwarded attacks": replay.Forward(s.Attacks())} {
			total += len(steps)
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				p := load(t, generated)
				for _, step := range steps {
					if got := verdict(t, p, step.Msg); (got == "") != step.Tenant || got == "policy-error" {
						t.Errorf("%s (%s): got %q, want allowed: %v", step.Name, step.Request(), got, step.Tenant)
					}
				}
			})
		}
	}
	t.Logf("%d requests", total)
}

// TestExplain: what a generated policy refuses is explained by the field of the request and the pod file's value.
func TestExplain(t *testing.T) {
	generated, err := Generate(t.Context(), []byte(replay.PodFile), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := load(t, generated)
	want := map[string][4]string{ // the last rule, the field, the given and one of the wanted values
		"app with a disk":                     {"storage_of", "storages[2].driver_options[_]", "undefined", ""},
		"app with a file over its program":    {"allowed_mount", "OCI.Mounts[15].destination", `"/app"`, `"/etc/hosts"`},
		"app with hosts from the guest":       {"allowed_mount", "OCI.Mounts[15].source", `"/etc/casemate/casemate.toml"`, ""},
		"app with a shared root":              {"confined", "OCI.Linux.RootfsPropagation", `"rshared"`, ""},
		"plain with a shell":                  {"process_of", "OCI.Process.Args", `["sh", "-c", "fetch 127.0.0.1:8006/cdh/resource/a/b/c"]`, `["/plain"]`},
		"exec with a preloaded library":       {"variable_of", "process.Env[12]", `"LD_PRELOAD=/etc/hosts"`, ""},
		"exec with a shell":                   {"ExecProcessRequest", "process.Args", `["sh"]`, `one of [["/app", "--check"], ["/app", "--stop"]]`},
		"exec with root's group":              {"group_of", "process.User.GID", "0", "1000"},
		"exec with another directory":         {"surroundings_of", "process.Cwd", `"/data"`, `"/srv"`},
		"copy over the agent":                 {"in_shared", "path", `"/usr/bin/kata-agent"`, ""},
		"sandbox with kernel module":          {"CreateSandboxRequest", "kernel_modules", "count: 1", "0"},
		"app with a host's path as namespace": {"allowed_namespace", "OCI.Linux.Namespaces[0].Path", `"/proc/1/ns/ipc"`, `""`},
		"app with no word on capabilities":    {"confined", "OCI.Process.Capabilities", "null", "true"},
	}
	for _, step := range replay.Stacks()[0].Attacks() {
		if w, ok := want[step.Name]; ok {
			delete(want, step.Name)
			x, err := p.Explain(t.Context(), step.Request(), step.Msg)
			if err != nil || len(x.Causes) == 0 {
				t.Errorf("%s: %+v, %v", step.Name, x, err)
				continue
			}
			c := x.Causes[0]
			if c.Rules[len(c.Rules)-1] != w[0] || c.Field != w[1] || c.Given != w[2] || w[3] != "" && !slices.Contains(c.Wanted, w[3]) {
				t.Errorf("%s: got %+v", step.Name, c)
			}
		}
		_ = p.Allow(t.Context(), step.Request(), step.Msg) // the pod's state
	}
	for name := range want {
		t.Errorf("%s was not tried", name)
	}
}
