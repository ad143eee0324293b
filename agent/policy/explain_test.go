// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/policy/replay"
)

// TestExplainReplay explains every denial of a host's attacks. The explanation is of a copy that went through a file,
// and it says what the decision said.
func TestExplainReplay(t *testing.T) {
	want := map[string]Cause{
		"builtin sandbox with disk over /etc":         {Field: "storages[0].driver", Given: `"blk"`, Wanted: []string{`"ephemeral"`}, Text: `storage.driver == "ephemeral"`},
		"builtin sandbox with kernel module":          {Field: "kernel_modules", Given: "count: 1", Wanted: []string{"0"}, Text: "count(input.kernel_modules) == 0"},
		"builtin app with a host's path as namespace": {Field: "OCI.Linux.Namespaces[0].Path", Given: `"/proc/1/ns/ipc"`, Wanted: []string{`""`}, Text: `namespace.Path == ""`},
		"builtin copy a link elsewhere":               {Field: "symlink_target", Given: `"/etc/casemate"`, Wanted: []string{`not: startswith(_, "/")`}, Text: `not startswith(input.symlink_target, "/")`},
		"builtin second sandbox":                      {Field: "data.pstate.sandbox", Wanted: []string{"false or undefined"}, Text: "not data.pstate.sandbox"},
		"shop sandbox with shm over the CA":           {Field: "storages[0].mount_point", Given: `"/etc/ssl"`, Wanted: []string{`"/run/kata-containers/sandbox/shm"`}},
		"shop app with an ambient capability":         {Field: "OCI.Process.Capabilities.Ambient[0]", Given: `"CAP_SYS_PTRACE"`},
		"shop app with a sysctl":                      {Field: "OCI.Linux.Sysctl", Given: `{"net.ipv4.conf.all.route_localnet": "1"}`, Wanted: []string{"{}"}},
		"shop app with a file over its program": {Field: "OCI.Mounts[15].destination", Given: `"/app"`, Wanted: []string{
			`"/dev/termination-log"`, `"/etc/app"`, `"/etc/hostname"`, `"/etc/hosts"`, `"/etc/resolv.conf"`, `"/srv/app.conf"`, `"/var/run/secrets/kubernetes.io/serviceaccount"`,
		}},
	}
	s := replay.Stacks()[0]
	for name, p := range map[string]*Policy{"builtin": builtIn(t), "shop": loadFile(t, "shop.rego")} {
		var last *Denial
		p.Watch(func(d Denial) { last = &d })
		for i, step := range s.Attacks() {
			last = nil
			denied := p.Allow(t.Context(), step.Request(), step.Msg)
			if denied == nil {
				continue
			}
			if last == nil {
				t.Fatalf("%s %s: nobody was told of the denial", name, step.Name)
			}
			w, ok := want[name+" "+step.Name]
			if !ok && i%4 != 0 {
				continue // each takes a tenth of a second
			}
			x := again(t, *last)
			if codeOf(t, x.Denied) != codeOf(t, denied) {
				t.Errorf("%s %s: explained %v, decided %v", name, step.Name, x.Denied, denied)
			}
			if codeOf(t, denied) == deny && len(x.Causes) == 0 {
				t.Errorf("%s %s: no cause", name, step.Name)
			}
			for _, c := range x.Causes {
				if strings.Contains(c.Given+strings.Join(c.Wanted, ""), "__local") || c.Line == 0 || len(c.Rules) == 0 || c.Rules[0] != step.Request() {
					t.Errorf("%s %s: %+v", name, step.Name, c)
				}
			}
			if !ok {
				continue
			}
			delete(want, name+" "+step.Name)
			got := x.Causes[0]
			if got.Field != w.Field || w.Given != "" && got.Given != w.Given || w.Wanted != nil && !reflect.DeepEqual(got.Wanted, w.Wanted) || w.Text != "" && got.Text != w.Text {
				t.Errorf("%s %s: got %+v, want %+v", name, step.Name, got, w)
			}
		}
	}
	for name := range want {
		t.Errorf("%s was not denied", name)
	}
}

// again takes a denial through a file.
func again(t *testing.T, d Denial) Explanation {
	t.Helper()
	raw, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	read, err := ParseDenial(raw)
	if err != nil {
		t.Fatal(err)
	}
	if read.Reason != d.Reason || read.Request != d.Request {
		t.Errorf("got %+v", read.Reason)
	}
	x, err := read.Explain(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// TestExplainForms are the ways in which a policy can say no.
func TestExplainForms(t *testing.T) {
	for name, tt := range map[string]struct {
		rules string
		want  Cause
	}{
		"a function asked twice": {
			"CopyFileRequest if { f(input.path, 1) }\nCopyFileRequest if { input.uid == 7; f(input.path, 1) }\nf(p, n) if { startswith(p, \"/x\") }",
			Cause{Rules: []string{"CopyFileRequest", "f"}, Field: "path", Given: `"/a"`, Wanted: []string{`startswith(_, "/x")`}},
		},
		"a list of candidates": {
			"CopyFileRequest if { m := [c | some c in [1, 2]; ok(c)]; x := m[0]; x > 0 }\nok(c) if { c == 2; input.path == \"/b\" }",
			Cause{Rules: []string{"CopyFileRequest", "ok"}, Field: "path", Given: `"/a"`, Wanted: []string{`"/b"`}},
		},
		"another value": {
			"CopyFileRequest if { input.file_type != \"Regular\" }",
			Cause{Rules: []string{"CopyFileRequest"}, Field: "file_type", Given: `"Regular"`, Wanted: []string{`another value than "Regular"`}},
		},
		"no such field": {
			"CopyFileRequest if { input.nothing.here == 1 }",
			Cause{Rules: []string{"CopyFileRequest"}, Field: "nothing.here", Given: "undefined", Wanted: []string{"1"}},
		},
		"one of the policy's": {
			"CopyFileRequest if { some want in [\"/b\", \"/c\"]; input.path == want }",
			Cause{Rules: []string{"CopyFileRequest"}, Field: "path", Given: `"/a"`, Wanted: []string{`"/b"`, `"/c"`}},
		},
		"what must be in the request": {
			"CopyFileRequest if { 9 in [input.uid, input.gid] }",
			Cause{Rules: []string{"CopyFileRequest"}, Given: "9", Wanted: []string{"one of [0, 0]"}},
		},
		"a bound": {
			"CopyFileRequest if { input.file_size < 3 }",
			Cause{Rules: []string{"CopyFileRequest"}, Field: "file_size", Given: "5", Wanted: []string{"lt(_, 3)"}},
		},
		"a comparison of comprehensions": {
			"CopyFileRequest if { [x | some x in [input.uid]] == [1] }",
			Cause{Rules: []string{"CopyFileRequest"}, Field: "uid", Given: "[0]", Wanted: []string{"[1]"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, head+"default CopyFileRequest := false\n"+tt.rules)
			d := Denial{Request: "CopyFileRequest", Text: p.text}
			if err := d.SetInput([]byte(`{"path":"/a","file_type":"Regular","file_size":5,"uid":0,"gid":0}`)); err != nil {
				t.Fatal(err)
			}
			x := again(t, withState(d))
			if codeOf(t, x.Denied) != deny || len(x.Causes) == 0 {
				t.Fatalf("got %+v", x)
			}
			c := x.Causes[0]
			tt.want.Line, tt.want.Text = c.Line, c.Text
			if !reflect.DeepEqual(c, tt.want) {
				t.Errorf("got %+v\nwant %+v\nof %+v", c, tt.want, x.Causes)
			}
		})
	}
}

func withState(d Denial) Denial {
	d.state = map[string]any{}
	return d
}

// TestExplainAllowed: another policy may allow what was denied.
func TestExplainAllowed(t *testing.T) {
	d := Denial{Request: "StartContainerRequest"}
	if err := d.SetInput([]byte(`{"container_id":"x"}`)); err != nil {
		t.Fatal(err)
	}
	x, err := withState(d).Explain(t.Context())
	if err != nil || x.Denied != nil || len(x.Causes) != 0 {
		t.Errorf("got %+v, %v", x, err)
	}
}

func TestParseDenialRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"a member twice":       `{"request":"a","request":"b"}`,
		"another member":       `{"request":"a","inputs":{}}`,
		"a list as request":    `{"request":"a","input":[]}`,
		"no state":             `{"request":"a","input":{},"state":null}`,
		"a member of it twice": `{"request":"a","input":{"x":1,"x":2}}`,
		"too long":             `{"request":"` + strings.Repeat("a", MaxDenial) + `"}`,
	} {
		if d, err := ParseDenial([]byte(text)); err == nil {
			t.Errorf("%s: got %+v", name, d)
		}
	}
	if _, err := (Denial{Request: "a"}).Explain(t.Context()); err == nil {
		t.Error("explained a request that is not there")
	}
}

// TestSameDenial: only the same request under the same policy in the same state has the same explanation.
func TestSameDenial(t *testing.T) {
	read := func(text string) Denial {
		d, err := ParseDenial([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	const text = `{"request":"a","input":{"x":1},"state":{"s":1},"policy":"p"}`
	d := read(text)
	if !d.Same(read(text)) {
		t.Error("not the same as itself")
	}
	for _, other := range []string{
		`{"request":"b","input":{"x":1},"state":{"s":1},"policy":"p"}`,
		`{"request":"a","input":{"x":2},"state":{"s":1},"policy":"p"}`,
		`{"request":"a","input":{"x":1},"state":{"s":2},"policy":"p"}`,
		`{"request":"a","input":{"x":1},"state":{"s":1},"policy":"q"}`,
		`{"request":"a","state":{"s":1},"policy":"p"}`,
	} {
		if o := read(other); d.Same(o) || o.Same(d) || o.input == nil && o.Same(o) {
			t.Errorf("%s: the same", other)
		}
	}
	if (Denial{}).Same(Denial{}) {
		t.Error("nothing is the same as nothing")
	}
}

// TestLargeDenial: a request that is too large leaves its reason.
func TestLargeDenial(t *testing.T) {
	d := Denial{
		Request: "CopyFileRequest", Reason: agent.Reason{Code: "policy-denied", Phrase: "no"},
		input: ast.NewObject([2]*ast.Term{ast.StringTerm("path"), ast.StringTerm(strings.Repeat("x", MaxDenial))}),
	}
	raw, err := d.Encode()
	if err != nil || len(raw) > 1000 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if read, err := ParseDenial(raw); err != nil || read.Reason != d.Reason {
		t.Errorf("got %+v, %v", read, err)
	}
}

// FuzzDenial: whatever stands in a file is explained or refused.
func FuzzDenial(f *testing.F) {
	f.Add([]byte(`{"request":"CreateContainerRequest","input":{"OCI":{"Mounts":[{"destination":"/etc"}]}},"state":{"sandbox":"a","pause":"b"}}`))
	f.Add([]byte(`{"request":"CopyFileRequest","input":{"path":"/x"},"policy":"package agent_policy\nCopyFileRequest { input.path = [1] }"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := ParseDenial(raw)
		if err != nil {
			return
		}
		x, err := d.Explain(t.Context())
		var denial *agent.Denial
		if err == nil && x.Denied != nil && !errors.As(x.Denied, &denial) {
			t.Errorf("got %v", x.Denied)
		}
	})
}
