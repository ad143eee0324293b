// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy/replay"
)

// TestUserByName: an image's user that has a name runs by that name alone, whatever numbers stand beside it, and so do
// its probes.
func TestUserByName(t *testing.T) {
	list := corpus()
	named := *list["registry.example/plain:1"]
	named.User = "web:staff"
	list["registry.example/plain:1"] = &named
	generated, err := Generate(t.Context(), []byte(replay.PodFile), list, Options{Exec: []Exec{{"plain", []string{"/check"}}}})
	if err != nil {
		t.Fatal(err)
	}
	s := replay.Stacks()[0]
	for name, tt := range map[string]struct {
		user    *kata.StringUser
		uid     uint32
		allowed bool
	}{
		"by name":               {&kata.StringUser{Uid: "web", Gid: "staff"}, 0, true},
		"beside another number": {&kata.StringUser{Uid: "web", Gid: "staff"}, 4711, true},
		"by number alone":       {nil, 33, false},
		"another name":          {&kata.StringUser{Uid: "root", Gid: "staff"}, 33, false},
		"another group":         {&kata.StringUser{Uid: "web", Gid: "root"}, 33, false},
		"a group more":          {&kata.StringUser{Uid: "web", Gid: "staff", AdditionalGids: []string{"disk"}}, 33, false},
		"a number as a name":    {&kata.StringUser{Uid: "0", Gid: "staff"}, 33, false},
	} {
		p := load(t, generated)
		for _, step := range s.Life() {
			m, ok := step.Msg.(*kata.CreateContainerRequest)
			if !ok || m.ContainerId != s.ID("plain") {
				_ = p.Allow(t.Context(), step.Request(), step.Msg)
				continue
			}
			m = proto.Clone(m).(*kata.CreateContainerRequest)
			m.StringUser, m.OCI.Process.User.UID = tt.user, tt.uid
			if err := p.Allow(t.Context(), step.Request(), m); (err == nil) != tt.allowed {
				t.Errorf("%s: got %v", name, err)
			}
			// The container as it should be, and a probe with the user of the case.
			m.StringUser = &kata.StringUser{Uid: "web", Gid: "staff"}
			_ = p.Allow(t.Context(), step.Request(), m)
			probe := &kata.ExecProcessRequest{ContainerId: m.ContainerId, ExecId: "probe", StringUser: tt.user, Process: proto.Clone(m.OCI.Process).(*kata.Process)}
			probe.Process.Args = []string{"/check"}
			if err := p.Allow(t.Context(), "ExecProcessRequest", probe); (err == nil) != tt.allowed {
				t.Errorf("%s: a probe: got %v", name, err)
			}
			break
		}
	}
}
