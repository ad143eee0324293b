// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"fmt"
	"testing"

	"github.com/casemate/casemate/agent/policy/replay"
)

// TestReplay judges the corpus by the policy that is generated of its pod file.
func TestReplay(t *testing.T) {
	list := catalogue{}
	for reference, img := range replay.Images() {
		list[reference] = &ImageConfig{
			Digest: "sha256:00", Entrypoint: img.Entrypoint, Cmd: img.Cmd, Env: img.Env, WorkingDir: img.WorkingDir,
		}
		if img.UID != 0 {
			list[reference].User = fmt.Sprintf("%d:%d", img.UID, img.GID)
		}
	}
	generated, err := Generate(t.Context(), []byte(replay.PodFile), list, Options{})
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
