// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/casemate/casemate/agent/api/kata"
)

// TestReplaceIsTheLibrarys compares our replace with the one that it stands in for.
func TestReplaceIsTheLibrarys(t *testing.T) {
	theirs := topdown.GetBuiltin(ast.Replace.Name)
	call := func(f topdown.BuiltinFunc, terms ...*ast.Term) (out *ast.Term, failed bool) {
		err := f(topdown.BuiltinContext{}, terms, func(v *ast.Term) error { out = v; return nil })
		return out, err != nil
	}
	texts := []string{"", "a", "aa", "aaa", "ab", "é", "éa", "a\xffb", "$(id)", "$(", "x$(id)y$(id)", "\U0001F600a"}
	for _, s := range texts {
		for _, old := range texts {
			for _, with := range texts {
				terms := []*ast.Term{ast.StringTerm(s), ast.StringTerm(old), ast.StringTerm(with)}
				want, wantFailed := call(theirs, terms...)
				got, failed := call(replaceAll, terms...)
				if old == "" {
					want, wantFailed = nil, true
				}
				if failed != wantFailed || !failed && !got.Equal(want) {
					t.Errorf("replace(%q, %q, %q): got %v, want %v", s, old, with, got, want)
				}
			}
		}
	}
	for i := range 3 {
		terms := []*ast.Term{ast.StringTerm("a"), ast.StringTerm("a"), ast.StringTerm("b")}
		terms[i] = ast.IntNumberTerm(1)
		if _, failed := call(replaceAll, terms...); !failed {
			t.Errorf("operand %d may be a number", i)
		}
	}
	long := ast.StringTerm(strings.Repeat("a", 1<<20))
	if _, failed := call(replaceAll, long, ast.StringTerm("a"), long); !failed {
		t.Error("a result of 1 TiB")
	}
}

// TestReplaceKeepsItsMeaning: a policy that gives the name another meaning is judged by that.
func TestReplaceKeepsItsMeaning(t *testing.T) {
	for name, text := range map[string]string{
		"the library's":  `StartContainerRequest if replace(input.container_id, "a", "b") == "bb"`,
		"nested":         `StartContainerRequest if { upper(replace(lower(input.container_id), "a", concat("", [replace("c", "c", "b")]))) == "BB" }`,
		"in a head":      "StartContainerRequest := true if f(\"ab\") == \"bb\"\nf(x) := replace(x, \"a\", \"b\")",
		"the policy's":   "StartContainerRequest if replace(1)\nreplace(x) if x == 1",
		"another's word": "StartContainerRequest if { replace(\"x\", \"y\", \"z\") == \"mock\" with replace as \"mock\" }",
	} {
		p := load(t, "package agent_policy\nimport rego.v1\ndefault StartContainerRequest := false\n"+text)
		if got := codeOf(t, p.Allow(t.Context(), "StartContainerRequest", &kata.StartContainerRequest{ContainerId: "ab"})); got != "" {
			t.Errorf("%s: got %q", name, got)
		}
	}
}
