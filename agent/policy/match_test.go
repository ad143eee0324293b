// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/casemate/casemate/agent/api/kata"
)

// differs says how our match and the library's answers are not the same.
func differs(pattern, value *ast.Term) string {
	call := func(f topdown.BuiltinFunc) string {
		said := "nothing"
		if err := f(topdown.BuiltinContext{}, []*ast.Term{pattern, value}, func(v *ast.Term) error { said = v.String(); return nil }); err != nil {
			return "error"
		}
		return said
	}
	got, want := call(matchPattern), call(topdown.GetBuiltin(ast.RegexMatch.Name))
	if got == want {
		return ""
	}
	return "got " + got + ", want " + want
}

// TestMatchIsTheLibrarys compares our regex.match with the one that it stands in for.
func TestMatchIsTheLibrarys(t *testing.T) {
	id := strings.Repeat("0f", 32)
	rests := []string{
		"", "$", "-[a-z0-9]{16}-resolv.conf$", "*", "+$", "?", "{2}", "{2", "{1001}", "{,2}", "**", "|x", "(x)", ")", "(?i)X", "[", "[x", "]", "}", "x$y", "^", "x^", "[^x]", "[x^]$",
		"[[^x]", "[[:alpha:]]", `\b-`, `\Bx`, `\x`, `\z`, `\`, "[]x]", "é*", "é", "\xff", "x|", "x|y", "[x|y]", "a[$]", ".", ".*", "$$", "\n", "\n*", " ", "-", "~+", strings.Repeat("x", 300), strings.Repeat("x{1000}", 2),
	}
	ends := []string{"", "x", "X", "xx", "-", "-0123456789abcdef-resolv.conf", "-0123456789abcdef-resolvxconf", "-0123456789abcdef-resolv.conf\n", "f", "0", "0f", "é", "éé", "\xff", "\n", "\n\n", "{2", "]", "}", "^", "$", "|x", " ", "~~", strings.Repeat("x", 300)}
	var split int
	for _, begin := range []string{"^", "", "^^", "(?m)^", "(?i)^", "(^", "^(?i)"} {
		for _, text := range []string{id, "/run/" + id, strings.Repeat("aé", 32), id[:20], ""} {
			for _, rest := range rests {
				pattern := begin + text + rest
				if _, _, ok := splitPattern(pattern); ok {
					split++
				}
				for _, start := range []string{text, strings.TrimSuffix(text, "f"), text + "f", "\n" + text, strings.ToUpper(text), "x" + text} {
					for _, end := range ends {
						if d := differs(ast.StringTerm(pattern), ast.StringTerm(start+end)); d != "" {
							t.Errorf("regex.match(%q, %q): %s", pattern, start+end, d)
						}
					}
				}
			}
		}
	}
	if split < 40 {
		t.Errorf("%d patterns were taken apart: nothing is compared", split)
	}
	for _, odd := range []*ast.Term{ast.IntNumberTerm(1), ast.InternedNullTerm, ast.ArrayTerm()} {
		long := ast.StringTerm("^" + id + "x")
		if differs(odd, long)+differs(long, odd) != "" {
			t.Errorf("%v as an operand", odd)
		}
	}
}

// TestMatchForgetsTheContainer: one container's id in a pattern says nothing about the next one's.
func TestMatchForgetsTheContainer(t *testing.T) {
	p := load(t, `package agent_policy
import rego.v1
default StartContainerRequest := false
StartContainerRequest if regex.match(concat("", ["^/run/", input.container_id, "-[a-z]{2}$"]), sprintf("/run/%v-ab", [replace(input.container_id, "x", "y")]))
RemoveContainerRequest if not regex.match(concat("", ["^", input.container_id, "[a-"]), "nothing")
`)
	mine, theirs := strings.Repeat("a", 64), "x"+strings.Repeat("a", 63)
	for range 2 { // whatever the first round left behind
		for id, want := range map[string]string{mine: "", theirs: "policy-denied", mine[:63] + "b": ""} {
			if got := codeOf(t, p.Allow(t.Context(), "StartContainerRequest", &kata.StartContainerRequest{ContainerId: id})); got != want {
				t.Errorf("%s: got %q, want %q", id, got, want)
			}
		}
	}
	// What is no pattern does not become one that matches nothing.
	if got := codeOf(t, p.Allow(t.Context(), "RemoveContainerRequest", &kata.RemoveContainerRequest{ContainerId: mine})); got != "policy-error" {
		t.Errorf("an invalid pattern: got %q", got)
	}
}

func FuzzMatchIsTheLibrarys(f *testing.F) {
	id := strings.Repeat("0f", 32)
	f.Add("^"+id+"-[a-z0-9]{16}-x$", id+"-0123456789abcdef-x")
	f.Add("^"+id+"*", id)
	f.Add("^"+id+"|x", "x")
	f.Fuzz(func(t *testing.T, pattern, value string) {
		for _, text := range []string{"", id} { // patterns long enough to be taken apart
			pattern, value := "^"+text+strings.TrimPrefix(pattern, "^"), text+value
			if d := differs(ast.StringTerm(pattern), ast.StringTerm(value)); d != "" {
				t.Errorf("regex.match(%q, %q): %s", pattern, value, d)
			}
		}
	})
}
