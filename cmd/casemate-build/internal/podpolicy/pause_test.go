// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy/replay"
)

// TestPauseIsThePauseProgram attacks the one container whose command the pod file does not name: a request that calls
// itself the sandbox's own, and brings an image, would otherwise run whatever the host writes.
func TestPauseIsThePauseProgram(t *testing.T) {
	generated, err := Generate(t.Context(), []byte(replay.PodFile), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range replay.Stacks() {
		for name, tt := range map[string]struct {
			change  func(m, app *kata.CreateContainerRequest)
			allowed bool
		}{
			"as the runtime sends it": {func(_, _ *kata.CreateContainerRequest) {}, true},
			"the pod's image with a shell": {func(m, app *kata.CreateContainerRequest) {
				m.Storages, m.OCI.Process = app.Storages, app.OCI.Process
				m.OCI.Process.Args = []string{"sh", "-c", "fetch 127.0.0.1:8006/cdh/resource/a/b/c"}
			}, false},
			"the pod's image": {func(m, app *kata.CreateContainerRequest) { m.Storages = app.Storages }, false},
			"another command": {func(m, _ *kata.CreateContainerRequest) { m.OCI.Process.Args = []string{"sh"} }, false},
			"a loader's library": {func(m, _ *kata.CreateContainerRequest) {
				m.OCI.Process.Env = append(m.OCI.Process.Env, "LD_PRELOAD=/x")
			}, false},
			"a terminal": {func(m, _ *kata.CreateContainerRequest) { m.OCI.Process.Terminal = true }, false},
			"a volume": {func(m, _ *kata.CreateContainerRequest) {
				m.Storages = append(m.Storages, &kata.Storage{Driver: "ephemeral", Fstype: "tmpfs", MountPoint: "/run/kata-containers/sandbox/ephemeral/x"})
			}, false},
			"a neighbour's mount": {func(m, _ *kata.CreateContainerRequest) {
				m.SharedMounts = []*kata.SharedMount{{Name: "x", SrcCtr: "app", SrcPath: "/", DstCtr: "POD", DstPath: "/x"}}
			}, false},
		} {
			p := load(t, generated)
			var pause, app *kata.CreateContainerRequest
			for _, step := range s.Life() {
				switch m := step.Msg.(type) {
				case *kata.CreateSandboxRequest:
					_ = p.Allow(t.Context(), step.Request(), m)
				case *kata.CreateContainerRequest:
					switch m.ContainerId {
					case s.SandboxID():
						pause = proto.Clone(m).(*kata.CreateContainerRequest)
					case s.ID("app"):
						app = proto.Clone(m).(*kata.CreateContainerRequest)
					}
				}
			}
			tt.change(pause, app)
			if err := p.Allow(t.Context(), "CreateContainerRequest", pause); (err == nil) != tt.allowed {
				t.Errorf("%s: %s: got %v", s, name, err)
			}
		}
	}
}
