// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
)

// reading allows to read a container's output until it has been started, and WaitProcess never.
const reading = head + `import rego.v1
default StartContainerRequest := false
default ReadStreamRequest := false
default WaitProcessRequest := false
StartContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": sprintf("/pstate/%s", [input.container_id]), "value": true}]}
ReadStreamRequest if not data.pstate[input.container_id]
`

// TestRepeatedRequests: an answer that was given before is given again until the state changes, and no longer.
func TestRepeatedRequests(t *testing.T) {
	p := load(t, reading)
	read := row{"a read", &kata.ReadStreamRequest{ContainerId: "a", Len: 1}, ""}
	replayRows(t, p, []row{
		read, read,
		{"a denied one", &kata.WaitProcessRequest{ContainerId: "a", ExecId: "a"}, deny},
		{"and again", &kata.WaitProcessRequest{ContainerId: "a", ExecId: "a"}, deny},
	})
	if len(p.repeats) != 1 {
		t.Errorf("%d requests are remembered, want the one that was allowed", len(p.repeats))
	}
	start, code := decide(t, p, &kata.StartContainerRequest{ContainerId: "a"})
	if code != "" {
		t.Fatal(code)
	}
	// The change is made and its handling has not begun: nobody is answered, from memory neither.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got := codeOf(t, p.Allow(ctx, "ReadStreamRequest", read.msg)); got != "policy-time" {
		t.Errorf("answered in between: %q", got)
	}
	start.Begun()
	replayRows(t, p, []row{
		{"after the change", read.msg, deny},
		{"another container", &kata.ReadStreamRequest{ContainerId: "b", Len: 1}, ""},
	})
	start.Undo()
	replayRows(t, p, []row{{"the change is undone", read.msg, ""}})
}

func TestRepeatsAreBounded(t *testing.T) {
	p := load(t, reading)
	for i := range 2 * repeatsMax {
		replayRows(t, p, []row{{"a read", &kata.ReadStreamRequest{ContainerId: fmt.Sprint(i)}, ""}})
	}
	if len(p.repeats) == 0 || len(p.repeats) > repeatsMax {
		t.Errorf("%d requests are remembered, want at most %d", len(p.repeats), repeatsMax)
	}
	clear(p.repeats)
	replayRows(t, p, []row{{"a large one", &kata.ReadStreamRequest{ContainerId: strings.Repeat("x", repeatSize)}, ""}})
	if len(p.repeats) != 0 {
		t.Error("a large request is remembered")
	}
}

// No request passes for another one.
func TestRepeatKeysDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, r := range []struct {
		request string
		msg     proto.Message
	}{
		{"ReadStreamRequest", &kata.ReadStreamRequest{}},
		{"ReadStreamRequest", &kata.ReadStreamRequest{ContainerId: "a"}},
		{"ReadStreamRequest", &kata.ReadStreamRequest{ExecId: "a"}},
		{"ReadStreamRequest", &kata.ReadStreamRequest{ContainerId: "a", Len: 1}},
		{"WriteStreamRequest", &kata.ReadStreamRequest{ContainerId: "a"}},
		{"ReadStreamRequest", &kata.WaitProcessRequest{ContainerId: "a"}},
		{"WaitProcessRequest", &kata.WaitProcessRequest{ContainerId: "a"}},
		{"SignalProcessRequest", &kata.SignalProcessRequest{ContainerId: "a", Signal: 9}},
		{"SignalProcessRequest", &kata.SignalProcessRequest{ContainerId: "a", Signal: 15}},
	} {
		key := repeatKey(r.request, r.msg)
		if other, twice := seen[string(key)]; twice || key == nil {
			t.Errorf("%s %v: the key of %s", r.request, r.msg, other)
		}
		seen[string(key)] = r.request
		if !bytes.Equal(key, repeatKey(r.request, proto.Clone(r.msg))) {
			t.Errorf("%s %v has two keys", r.request, r.msg)
		}
	}
	if key := repeatKey("SetPolicyRequest", &kata.SetPolicyRequest{Policy: "\xff"}); key != nil {
		t.Errorf("what is no text has the key %q", key)
	}
}

func BenchmarkRepeated(b *testing.B) {
	p, err := Load([]byte(reading))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := p.Allow(b.Context(), "ReadStreamRequest", &kata.ReadStreamRequest{ContainerId: cid, ExecId: cid, Len: 32 << 10}); err != nil {
			b.Fatal(err)
		}
	}
}
