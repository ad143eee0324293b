// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"bytes"
	"context"
	"io"
	"maps"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/print"
	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
)

// The gate prefers this.
var _ agent.Decider = (*Policy)(nil)

const endless = head + `import rego.v1
DestroySandboxRequest if {
	some a in numbers.range(1, 100000)
	some b in numbers.range(1, 100000)
	a * b < 0
}
WaitProcessRequest if { numbers.range(1, 100000000000)[_] < 0 }
StatsContainerRequest := true
`

func TestEndlessPolicyDenies(t *testing.T) {
	p := load(t, endless)
	start := time.Now()
	replayRows(t, p, []row{
		{"endless loop", &kata.DestroySandboxRequest{}, "policy-time"},
		{"next request is judged", &kata.StatsContainerRequest{}, ""},
		{"endless builtin", &kata.WaitProcessRequest{}, "policy-time"},
	})
	if took := time.Since(start); took > 3*TimeLimit {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	start = time.Now()
	if got := codeOf(t, p.Allow(ctx, "DestroySandboxRequest", &kata.DestroySandboxRequest{})); got != "policy-time" || time.Since(start) > TimeLimit/2 {
		t.Errorf("a request that ends: %q after %v", got, time.Since(start))
	}
}

func TestHugeInputDenies(t *testing.T) {
	p := load(t, head+"default WriteStreamRequest := true\ndefault SetPolicyRequest := true\ndefault CopyFileRequest := true\ndefault CreateSandboxRequest := true")
	big := strings.Repeat("x", 10<<20)
	many := make([]*kata.Storage, MaxValues/4)
	for i := range many {
		many[i] = &kata.Storage{}
	}
	replayRows(t, p, []row{
		{"10 MB of bytes", &kata.WriteStreamRequest{Data: []byte(big)}, "policy-input"},
		{"10 MB of text", &kata.SetPolicyRequest{Policy: big}, "policy-input"},
		{"10 MB link target", link("/x", big), "policy-input"},
		{"many messages", &kata.CreateSandboxRequest{Storages: many}, "policy-input"},
		{"text that is none", &kata.SetPolicyRequest{Policy: "\xff"}, "policy-input"},
		{"link target that is no text", link("/x", "\xff"), "policy-input"},
		{"content is not input", &kata.CopyFileRequest{FileMode: modeRegular, Data: []byte(big)}, ""},
		{"what kata's runtimes write at once", &kata.WriteStreamRequest{Data: make([]byte, 32<<10)}, ""},
	})
}

// TestVerdicts: only true, or an object that says so and whose patch applies, allows.
func TestVerdicts(t *testing.T) {
	for _, tt := range []struct{ value, want string }{
		{"true", ""},
		{`{"allowed": true}`, ""},
		{`{"allowed": true, "ops": null}`, ""},
		{`{"allowed": true, "ops": []}`, ""},
		{"false", deny}, {`"true"`, deny}, {"1", deny}, {"null", deny}, {"[true]", deny}, {"{}", deny}, {"{true}", deny},
		{`{"allowed": "true"}`, deny}, {`{"allowed": false, "ops": []}`, deny}, {`{"allowed": 1}`, deny}, {`{"Allowed": true}`, deny},
		{`{"allowed": true, "ops": {}}`, "policy-error"},
		{`{"allowed": true, "ops": [1]}`, "policy-error"},
		{`{"allowed": true, "ops": [{"op": "move", "from": "/pstate/a", "path": "/pstate/b"}]}`, "policy-error"},
		{`{"allowed": true, "ops": [{"op": "add", "path": "/agent_policy/x", "value": 1}]}`, "policy-error"},
		{`{"allowed": true, "ops": [{"op": "replace", "path": "/pstate", "value": {}}]}`, "policy-error"},
		{`{"allowed": true, "ops": [{"op": "remove", "path": "/pstate/none"}]}`, "policy-error"},
		{`{"allowed": true, "ops": [{"op": "add", "path": "/pstate/a"}]}`, "policy-error"},
		{`{"allowed": true, "ops": [{"op": "test", "path": "/pstate/a", "value": 1}]}`, "policy-error"},
	} {
		p := load(t, head+"default DestroySandboxRequest := false\nDestroySandboxRequest := x if { x := "+tt.value+" }")
		if got := codeOf(t, p.Allow(t.Context(), "DestroySandboxRequest", &kata.DestroySandboxRequest{})); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.value, got, tt.want)
		}
		if len(p.state) != 0 {
			t.Errorf("%s: state is %v", tt.value, p.state)
		}
	}
	p := load(t, head+`A := regex.match("(", input.x)`)
	for request, want := range map[string]string{"None": silent, "a\"] = true; x := input[\"": silent, "": silent} {
		if got := codeOf(t, p.Allow(t.Context(), request, &kata.DestroySandboxRequest{})); got != want {
			t.Errorf("request %q: got %q, want %q", request, got, want)
		}
	}
	p = load(t, head+`SetPolicyRequest if { not regex.match(input.policy, "x") }`)
	replayRows(t, p, []row{{"an error of a builtin under not", &kata.SetPolicyRequest{Policy: "("}, "policy-error"}})
	p = load(t, head+"SetPolicyRequest := input.policy\nSetPolicyRequest := true")
	replayRows(t, p, []row{{"two values", &kata.SetPolicyRequest{}, "policy-error"}})
}

func TestPrintsStayInside(t *testing.T) {
	const secret = "canary-5d1c"
	p := load(t, head+`import rego.v1
SetPolicyRequest if {
	print("policy is", input.policy)
	input.policy == "x"
}`)
	out := captured(t, func() {
		err := p.Allow(t.Context(), "SetPolicyRequest", &kata.SetPolicyRequest{Policy: secret})
		if err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("got %v", err)
		}
	})
	if strings.Contains(out, secret) {
		t.Errorf("printed to the console: %s", out)
	}
	e, err := p.Explain(t.Context(), "SetPolicyRequest", &kata.SetPolicyRequest{Policy: secret})
	if err != nil || e.Denied == nil || len(e.Prints) != 1 || e.Prints[0] != "policy is "+secret {
		t.Errorf("explained %+v, %v", e, err)
	}
	if e, err = p.Explain(t.Context(), "SetPolicyRequest", &kata.SetPolicyRequest{Policy: "x"}); err != nil || e.Denied != nil {
		t.Errorf("explained %+v, %v", e, err)
	}
}

// captured returns what f wrote to standard output and standard error.
func captured(t *testing.T, f func()) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out, errs := os.Stdout, os.Stderr
	os.Stdout, os.Stderr = w, w
	f()
	os.Stdout, os.Stderr = out, errs
	w.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func decide(t *testing.T, p *Policy, msg proto.Message) (agent.Decision, string) {
	t.Helper()
	d, err := p.Decide(t.Context(), string(msg.ProtoReflect().Descriptor().Name()), msg)
	return d, codeOf(t, err)
}

// TestUndo: a container whose creation failed may be created again, and a failed removal leaves it known.
func TestUndo(t *testing.T) {
	p := loadFile(t, "tenant.rego")
	pause := create("a", []string{"/pause"}, nil)
	d, code := decide(t, p, pause)
	if code != "" {
		t.Fatal(code)
	}
	d.Undo()
	d.Undo()
	if d, code = decide(t, p, pause); code != "" {
		t.Fatalf("after undo: %s", code)
	}
	d.Begun()
	d.Begun()
	before := maps.Clone(p.state)
	remove, code := decide(t, p, &kata.RemoveContainerRequest{ContainerId: "a"})
	if code != "" {
		t.Fatal(code)
	}
	remove.Begun()
	remove.Undo()
	if !reflect.DeepEqual(p.state, before) {
		t.Errorf("state %v, want %v", p.state, before)
	}
	// Undo after a later decision touches its own key only.
	other, code := decide(t, p, create("c", []string{"/app", "--serve"}, nil))
	if code != "" {
		t.Fatal(code)
	}
	other.Begun()
	d.Undo()
	if _, known := p.state["a"]; known || p.state["c"] == nil {
		t.Errorf("state %v", p.state)
	}
}

// TestDecisionIsExclusive: of many simultaneous creates of the same container one is allowed, and nobody is judged
// between a change of state and the start of its handling.
func TestDecisionIsExclusive(t *testing.T) {
	p := loadFile(t, "tenant.rego")
	var allowed, inside atomic.Int32
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			d, err := p.Decide(t.Context(), "CreateContainerRequest", create(string(rune('A'+i)), []string{"/pause"}, nil))
			if err != nil {
				return
			}
			if inside.Add(1) != 1 {
				t.Error("two decisions at once")
			}
			allowed.Add(1)
			time.Sleep(5 * time.Millisecond)
			inside.Add(-1)
			d.Begun()
		})
	}
	wg.Wait()
	if allowed.Load() != 1 {
		t.Errorf("%d creates allowed, want 1", allowed.Load())
	}
	d, code := decide(t, p, &kata.RemoveContainerRequest{ContainerId: only(t, p.state)})
	if code != "" {
		t.Fatal(code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if got := codeOf(t, p.Allow(ctx, "SignalProcessRequest", &kata.SignalProcessRequest{})); got != "policy-time" {
		t.Errorf("judged in between: %q", got)
	}
	d.Begun()
	replayRows(t, p, []row{{"afterwards", &kata.SignalProcessRequest{}, ""}})
}

func only(t *testing.T, state map[string]any) string {
	t.Helper()
	if len(state) != 1 {
		t.Fatalf("state %v, want one key", state)
	}
	for k := range state {
		return k
	}
	return ""
}

func TestApply(t *testing.T) {
	state := map[string]any{"a": []any{"x"}, "b": map[string]any{"c~/": "y"}}
	for _, tt := range []struct {
		op   op
		want any // the state, nil for an error
	}{
		{op{"add", []string{"a", "-"}, "z"}, map[string]any{"a": []any{"x", "z"}, "b": state["b"]}},
		{op{"add", []string{"a", "0"}, "z"}, map[string]any{"a": []any{"z", "x"}, "b": state["b"]}},
		{op{"add", []string{"a", "1"}, "z"}, map[string]any{"a": []any{"x", "z"}, "b": state["b"]}},
		{op{"remove", []string{"a", "0"}, nil}, map[string]any{"a": []any{}, "b": state["b"]}},
		{op{"replace", []string{"b", "c~/"}, 1}, map[string]any{"a": state["a"], "b": map[string]any{"c~/": 1}}},
		{op{"test", []string{"a", "0"}, "x"}, state},
		{op{"test", []string{"a", "0"}, "y"}, nil},
		{op{"add", []string{"a", "2"}, "z"}, nil},
		{op{"add", []string{"a", "01"}, "z"}, nil},
		{op{"add", []string{"a", "-1"}, "z"}, nil},
		{op{"remove", []string{"a", "-"}, nil}, nil},
		{op{"replace", []string{"n"}, "z"}, nil},
		{op{"add", []string{"n", "m"}, "z"}, nil},
		{op{"add", []string{"a", "0", "m"}, "z"}, nil},
	} {
		got, err := apply(state, []op{tt.op})
		if (err != nil) != (tt.want == nil) || err == nil && !reflect.DeepEqual(any(got), tt.want) {
			t.Errorf("%v: got %v, %v", tt.op, got, err)
		}
	}
	if !reflect.DeepEqual(state, map[string]any{"a": []any{"x"}, "b": map[string]any{"c~/": "y"}}) {
		t.Errorf("the old state changed: %v", state)
	}
	ops, err := parseOps([]any{map[string]any{"op": "remove", "path": "/pstate/b/c~0~1"}})
	if err != nil || !reflect.DeepEqual(ops[0].path, []string{"b", "c~/"}) {
		t.Errorf("path %v, %v", ops, err)
	}
}

// panicking breaks the evaluation that it is given to.
type panicking struct{}

func (panicking) Print(print.Context, string) error { panic("canary-5d1c") }

// TestPanicDenies: whatever breaks inside the library is a denial, and the next request is judged.
func TestPanicDenies(t *testing.T) {
	text := head + "DestroySandboxRequest if { print(1) }"
	p := load(t, text)
	compiler, _, err := compile([]byte(text), p.version, true)
	if err != nil {
		t.Fatal(err)
	}
	_, err = p.judge(t.Context(), evaluation{compiler: compiler, request: "DestroySandboxRequest", input: ast.NewObject(), limit: TimeLimit, prints: panicking{}})
	if got := codeOf(t, err); got != "policy-error" {
		t.Errorf("got %q", got)
	}
	replayRows(t, p, []row{{"the next request", &kata.DestroySandboxRequest{}, ""}})
}
