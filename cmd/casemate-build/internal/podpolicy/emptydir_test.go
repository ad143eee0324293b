// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"slices"
	"testing"

	"github.com/casemate/casemate/agent/api/kata"
)

const twoDirs = `
kind: Pod
metadata: {name: p}
spec:
  enableServiceLinks: false
  automountServiceAccountToken: false
  volumes: [{name: inbox, emptyDir: {}}, {name: keys, emptyDir: {}}]
  containers:
  - {name: fetcher, image: busybox, command: [fetch], volumeMounts: [{name: inbox, mountPath: /in}]}
  - {name: signer, image: busybox, command: [sign], volumeMounts: [{name: inbox, mountPath: /in, readOnly: true}, {name: keys, mountPath: /keys}]}
`

// TestEmptyDirsAreNotSwapped attacks what containers share: which directory stands for an emptyDir is the host's word,
// and it must be the same word for each container, and another one for each emptyDir.
func TestEmptyDirsAreNotSwapped(t *testing.T) {
	const one, two, three = shared + "s/rootfs/local/inbox", shared + "s/rootfs/local/keys", "/run/kata-containers/sandbox/storage/MDM="
	ask := func(id, program string, mounts ...[2]string) *kata.CreateContainerRequest {
		return request(id, "busybox", &kata.Process{Args: []string{program}, Env: prepare().Env[:1]}, func(m *kata.CreateContainerRequest) {
			for _, at := range mounts {
				m.OCI.Mounts = append(m.OCI.Mounts, &kata.Mount{Destination: at[0], Source: at[1], Type: "bind", Options: []string{"rbind", "ro"}})
			}
		})
	}
	fetcher := ask("a", "fetch", [2]string{"/in", one})
	for name, tt := range map[string]struct {
		signer  *kata.CreateContainerRequest
		remove  bool
		allowed bool
	}{
		"as the file says":             {ask("b", "sign", [2]string{"/in", one}, [2]string{"/keys", two}), false, true},
		"on disks":                     {ask("b", "sign", [2]string{"/in", one}, [2]string{"/keys", three}), false, true},
		"the keys in the inbox":        {ask("b", "sign", [2]string{"/keys", one}), false, false},
		"one directory for both":       {ask("b", "sign", [2]string{"/in", one}, [2]string{"/keys", one}), false, false},
		"another inbox":                {ask("b", "sign", [2]string{"/in", two}), false, false},
		"swapped":                      {ask("b", "sign", [2]string{"/in", two}, [2]string{"/keys", one}), false, false},
		"one over the other":           {ask("b", "sign", [2]string{"/keys", two}, [2]string{"/keys", three}), false, false},
		"another inbox, after the end": {ask("b", "sign", [2]string{"/in", two}), true, true},
	} {
		p := load(t, generate(t, twoDirs, Options{}))
		first := []string{
			verdict(t, p, &kata.CreateSandboxRequest{Hostname: "p"}), verdict(t, p, request("s", "pause", &kata.Process{Args: []string{"/pause"}})), verdict(t, p, fetcher),
		}
		if tt.remove {
			first = append(first, verdict(t, p, &kata.RemoveContainerRequest{ContainerId: "a"}))
		}
		if slices.ContainsFunc(first, func(code string) bool { return code != "" }) {
			t.Fatalf("%s: %q", name, first)
		}
		if got := verdict(t, p, tt.signer); (got == "") != tt.allowed || got == "policy-error" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestSharedMemoryIsThePods: a runtime gives the sandbox's own to containers whose emptyDirs lie on /dev/shm.
func TestSharedMemoryIsThePods(t *testing.T) {
	p := load(t, generate(t, `
kind: Pod
metadata: {name: p}
spec:
  volumes: [{name: a, emptyDir: {}}, {name: b, emptyDir: {}}]
  containers:
  - {name: a, image: busybox, command: [a], volumeMounts: [{name: a, mountPath: /dev/shm}]}
  - {name: b, image: busybox, command: [b], volumeMounts: [{name: b, mountPath: /dev/shm}]}
`, Options{}))
	for _, m := range []*kata.CreateContainerRequest{
		request("s", "pause", &kata.Process{Args: []string{"/pause"}}),
		request("a", "busybox", &kata.Process{Args: []string{"a"}, Env: prepare().Env[:1]}), request("b", "busybox", &kata.Process{Args: []string{"b"}, Env: prepare().Env[:1]}),
	} {
		_ = verdict(t, p, &kata.CreateSandboxRequest{})
		if got := verdict(t, p, m); got != "" {
			t.Errorf("%s: got %q", m.ContainerId, got)
		}
	}
}
