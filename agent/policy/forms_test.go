// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/casemate/casemate/agent/api/kata"
)

// generatedForms are what the rules of kata's generator are made of, in its versions in Rego v0 and in those in both:
// functions, and ways to write rules. Each condition holds.
var generatedForms = map[string]string{
	"bits left over":             `bits.and(5, bits.negate(4)) == 1; bits.or(136, 8) == 136`,
	"number in a placeholder":    `to_number(trim_right(trim_left("$(layer12)", "$(layer"), ")")) == 12`,
	"part of a path":             `regex.find_all_string_submatch_n("^/box/([0-9a-f]{4}|[a-z]+)/root$", "/box/abc/root", 1)[0][1] == "abc"`,
	"path that does not match":   `not regex.find_all_string_submatch_n("^/box/([a-z]+)$", "/x", 1)[0][1]`,
	"address in a name":          `base64url.encode("02/01") == "MDIvMDE="`,
	"text in a name":             `base64.is_valid("bGF5ZXI="); base64.decode("bGF5ZXI=") == "layer"; not base64.is_valid("~")`,
	"keys":                       `object.keys({"a": 1, "b": 2}) == {"a", "b"}`,
	"every pair":                 `every k, v in {"cdi/vfio1": "gpu=0"} { startswith(k, "cdi/"); regex.match("^gpu=[0-9]+$", v) }`,
	"every place":                `every i, x in ["a", "b"] { ["a", "b"][i] == x }`,
	"two words for one thing":    `kind("MOUNT") == "mnt"; kind("ipc") == "ipc"; bare("CAP_KILL") == "KILL"; bare("KILL") == "KILL"`,
	"one for each":               `count({p | some i; p = place(["b", "a"][i])}) == 2; count({p | some i; p = place(["b", "c"][i])}) == 1`,
	"twice the same":             `count({p | some i; p = place(["b", "b"][i])}) == 1`,
	"state not set":              `saved := data["pstate"]; not saved["nothing"]; not state_of("nothing")`,
	"step that is null":          `steps := with_step([], null); count(steps) == 0; count(with_step(steps, {"op": "add"})) == 1`,
	"value in a pattern":         `text := replace("^HOST=$(label)$", "$(label)", data.agent_policy.policy_data.label); regex.match(text, "HOST=a-b.c")`,
	"dollar twice":               `replace("$$(id) $$x", "$$", "$") == "$(id) $x"`,
	"unified, not assigned":      `id = input.container_id; id == "c"`,
	"name and value":             `pair := split("A=b", "="); count(pair) == 2; pair[1] == "b"; contains("a$(n)b", "$(n)")`,
	"not among":                  `not input.container_id in ["a", "b"]; "c" in {x | x = ["c", "d"][_]}`,
	"sets":                       `{x | x = ["ro", "rw"][_]} - {"rw"} == {"ro"}; {"a"} | {"b"} == {"b", "a"}`,
	"filtered":                   `[o | o := [{"T": "network"}, {"T": "ipc"}][_]; o.T != "network"] == [{"T": "ipc"}]`,
	"print of what is not there": `print("state =", data.pstate["nothing"], input.nothing.at.all)`,
	"constants of capital names": `NAME_KEY == "sandbox-name"; policy_data.of[NAME_KEY] == "x"`,
	"flag of the data":           `policy_data.flag == true; not policy_data.missing`,
	"compared whole":             `{"b": [1], "a": null} == policy_data.whole`,
}

const generatedHelpers = `
default StatsContainerRequest := false
default AllowRequestsFailingPolicy := false
NAME_KEY = "sandbox-name"
kind(t) := k IF { lower(t) == "mount"; k := "mnt" } else := k IF { k := t }
bare(c) := b IF { startswith(c, "CAP_"); b := substring(c, 4, count(c) - 4) } else := b IF { b := c }
place(x) := i IF { some i, y in ["a", "b"]; x == y }
state_of(key) = value IF { all := whole_state(); value := all[key] }
whole_state() = state IF { state := data["pstate"] }
with_step(steps, step) = all IF { step == null; all := steps }
with_step(steps, step) = all IF { step != null; all := array.concat(steps, [step]) }

policy_data := {
  "label": "[a-z.-]+",
  "flag": true,
  "of": {"sandbox-name": "x"},
  "whole": {"a": null, "b": [1]}
}
`

// TestGeneratedForms judges each form in the text of either version, and explains it with its prints.
func TestGeneratedForms(t *testing.T) {
	request := &kata.StatsContainerRequest{ContainerId: "c"}
	for name, condition := range generatedForms {
		for version, text := range map[ast.RegoVersion]string{
			ast.RegoV1: "package agent_policy\nimport future.keywords.in\nimport future.keywords.every\nimport future.keywords.if\n" + strings.ReplaceAll(generatedHelpers, "IF", "if") + "StatsContainerRequest if { %s }\n",
			ast.RegoV0: "package agent_policy\nimport future.keywords.in\nimport future.keywords.every\nimport input\n" + strings.ReplaceAll(generatedHelpers, "IF", "") + "StatsContainerRequest { %s }\n",
		} {
			p := load(t, fmt.Sprintf(text, condition))
			if p.version != version {
				t.Errorf("%s: read as %v, want %v", name, p.version, version)
			}
			if err := p.Allow(t.Context(), "StatsContainerRequest", request); err != nil {
				t.Errorf("%s, %v: %v", name, version, err)
			}
			if _, err := p.Explain(t.Context(), "StatsContainerRequest", request); err != nil {
				t.Errorf("%s, %v: explaining: %v", name, version, err)
			}
			if err := load(t, fmt.Sprintf(text, condition+"; input.container_id == \"d\"")).Allow(t.Context(), "StatsContainerRequest", request); codeOf(t, err) != deny {
				t.Errorf("%s, %v, and one thing that does not hold: %v", name, version, err)
			}
		}
	}
}
