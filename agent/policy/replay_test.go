// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"slices"
	"testing"

	"github.com/casemate/casemate/agent/policy/replay"
)

// TestReplay judges the corpus: a pod's life and a host's attacks in the shapes of both runtimes under three engines,
// by the built-in policy and by one that a tenant wrote by hand. Package podpolicy has the generated one's turn.
func TestReplay(t *testing.T) {
	total := 0
	for _, s := range replay.Stacks() {
		for name, steps := range map[string][]replay.Step{
			"life": s.Life(), "attacks": s.Attacks(), "peer": replay.Forward(s.Life()), "peer attacks": s.PeerAttacks(),
			"forwarded attacks": replay.Forward(s.Attacks()), "peer on disk": replay.Forward(replay.OnDisk(s.Life())),
		} {
			total += len(steps)
			t.Run(s.String()+"/"+name+"/built-in", func(t *testing.T) {
				p := builtIn(t)
				for _, step := range steps {
					judged(t, p, step, step.BuiltIn)
				}
			})
			t.Run(s.String()+"/"+name+"/by hand", func(t *testing.T) {
				p := loadFile(t, "shop.rego")
				for _, step := range steps {
					judged(t, p, step, step.Tenant)
				}
			})
		}
	}
	t.Logf("%d requests", total)
	if total < 1000 {
		t.Errorf("the corpus has shrunk to %d requests", total)
	}
}

func judged(t *testing.T, p *Policy, step replay.Step, want bool) {
	t.Helper()
	code := codeOf(t, p.Allow(t.Context(), step.Request(), step.Msg))
	if want && code != "" || !want && !slices.Contains([]string{deny, silent}, code) {
		t.Errorf("%s (%s): got %q, want allowed: %v", step.Name, step.Request(), code, want)
	}
}
