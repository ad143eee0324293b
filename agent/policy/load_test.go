// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/casemate/casemate/agent/api/kata"
)

const head = "package agent_policy\n"

func TestLoadVersions(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		version    ast.RegoVersion
	}{
		{"v1", head + "import rego.v1\ndefault A := false\nA if input.x == 1", ast.RegoV1},
		{"v1 without import", head + "A if { input.x == 1 }", ast.RegoV1},
		{"v0", head + "default A = false\nA { input.x == 1 }", ast.RegoV0},
		{"v0 with future keywords", head + "import future.keywords.in\nA { input.x in [1] }", ast.RegoV0},
		{"explicit false", head + "default AllowRequestsFailingPolicy := false", ast.RegoV1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p := load(t, tt.text); p.version != tt.version {
				t.Errorf("version %v, want %v", p.version, tt.version)
			}
		})
	}
	for name, want := range map[string]ast.RegoVersion{"tenant.rego": ast.RegoV1, "tenant_v0.rego": ast.RegoV0} {
		if p := loadFile(t, name); p.version != want {
			t.Errorf("%s: version %v, want %v", name, p.version, want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	call := func(c string) string { return head + "import rego.v1\nA if {\n  x := " + c + "\n  x\n}" }
	for _, tt := range []struct{ name, text, want string }{
		{"http.send", call(`http.send({"method":"get","url":"http://h"})`), "line 4: undefined function http.send"},
		{"opa.runtime", call("opa.runtime()"), "opa.runtime"},
		{"environment by name", call(`opa.runtime().env["HOME"]`), "opa.runtime"},
		{"resolver", call(`net.lookup_ip_addr("h")`), "net.lookup_ip_addr"},
		{"networks", call(`net.cidr_contains("10.0.0.0/8", "10.0.0.1")`), "net.cidr_contains"},
		{"clock", call("time.now_ns()"), "time.now_ns"},
		{"random number", call(`rand.intn("x", 5)`), "rand.intn"},
		{"uuid", call(`uuid.rfc4122("x")`), "uuid.rfc4122"},
		{"trace", call(`trace("x")`), "trace"},
		{"token decoding", call(`io.jwt.decode("x")`), "io.jwt.decode"},
		{"unknown function", call("no.such(1)"), "no.such"},
		{"fail open", head + "AllowRequestsFailingPolicy := true", "line 2: AllowRequestsFailingPolicy is refused"},
		{"fail open by default", head + "default AllowRequestsFailingPolicy := true", "AllowRequestsFailingPolicy"},
		{"fail open on condition", head + "default AllowRequestsFailingPolicy := false\nAllowRequestsFailingPolicy if { input.x }", "line 3: AllowRequestsFailingPolicy"},
		{"fail open by else", head + "AllowRequestsFailingPolicy := false if { input.x } else := true", "AllowRequestsFailingPolicy"},
		{"fail open in v0", head + "AllowRequestsFailingPolicy { true }", "AllowRequestsFailingPolicy"},
		{"v1 with a mistake, read as v0 without its condition", head + "A := true if { input.x == 1 }\nB { input.y }", "line 3"},
		{"v1 with a mistake, allowing by else", head + "A := false if { input.x } else := true\nB { 1 }", "line 3"},
		{"v1 by its form is not read as v0", head + "A := true if { http.send({}) }", "http.send"},
		{"fail open as a part", head + "AllowRequestsFailingPolicy.x := false", "AllowRequestsFailingPolicy"},
		{"other package", "package other\nA := true", "want package agent_policy"},
		{"nested package", "package agent_policy.x\nA := true", "want package agent_policy"},
		{"recursion", head + "A if { B }\nB if { A }", "recursive"},
		{"empty", "", "empty module"},
		{"not text", head + "# \xff", "UTF-8"},
		{"no Rego", head + "}{", "line 2"},
		{"huge", head + "#" + strings.Repeat("x", MaxText), "at most 1048576"},
		{"deep", head + "A := " + strings.Repeat("[", MaxText-100), "line 2"},
		{"deep braces", head + "A := " + strings.Repeat("{1:", 300_000), "line 2"},
		{"deep parentheses", head + "A := " + strings.Repeat("(", MaxText-100), "line 2"},
		{"deep negation", head + "A if { " + strings.Repeat("not ", 200_000) + " }", "line 2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.300v, want %q in it", err, tt.want)
			}
		})
	}
}

// TestBuiltinsAllowed lists what the generated policies call.
func TestBuiltinsAllowed(t *testing.T) {
	for _, call := range []string{
		`regex.match("^a", "a")`, `regex.find_all_string_submatch_n("a", "a", 1)`, `base64url.encode("x")`, `base64url.encode_no_pad("x")`, `bits.and(1, 1)`,
		`bits.lsh(1, 2)`, `array.concat([], [1])`, `concat("/", ["a"])`, `sprintf("%v", [1])`, `json.marshal({})`, `object.get({}, "a", 1)`, `print("x")`,
	} {
		p := load(t, head+"import rego.v1\nDestroySandboxRequest if { "+call+" }")
		if err := p.Allow(t.Context(), "DestroySandboxRequest", &kata.DestroySandboxRequest{}); err != nil {
			t.Errorf("%s: %v", call, err)
		}
	}
}

// TestLift: constants become data with the same meaning by name and by path, everything else stays a rule.
func TestLift(t *testing.T) {
	text := head + `import rego.v1
policy_data := {"a": {"b": [1, {"c": null}]}}
with_set := {"s": {1, 2}}
computed := {"n": count([1])}
twice := {"x": 1}
twice := {"x": 1}
DestroySandboxRequest if {
	policy_data.a.b[1].c == null
	data.agent_policy.policy_data.a.b[0] == 1
	is_set(with_set.s)
	computed.n == 1
	twice.x == 1
	not policy_data.a.missing
	not data.agent_policy.policy_data.missing
}
WaitProcessRequest if policy_data.a.missing.deeper
`
	p := load(t, text)
	replayRows(t, p, []row{{"constants", &kata.DestroySandboxRequest{}, ""}, {"missing data key", &kata.WaitProcessRequest{}, silent}})
	_, base, err := compile([]byte(text), ast.RegoV1, false)
	if err != nil {
		t.Fatal(err)
	}
	if lifted := base[packageName].(map[string]any); len(lifted) != 1 || lifted["policy_data"] == nil {
		t.Errorf("lifted %v", lifted)
	}
}
