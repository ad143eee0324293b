// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
)

const affirming = `{"submods":{"cpu0":{"ear.status":"affirming"}}}`

func request() Request {
	return Request{Plugin: "resource", Path: []string{"app", "key", "1"}, Workload: "web"}
}

func mustCompile(t *testing.T, text string) *Policy {
	t.Helper()
	p, err := Compile(text)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBuiltInWantsEverySubmoduleAffirming(t *testing.T) {
	p := mustCompile(t, "")
	for _, tt := range []struct {
		name, claims string
		want         bool
	}{
		{"affirming", affirming, true},
		{"two affirming", `{"submods":{"cpu0":{"ear.status":"affirming"},"gpu0":{"ear.status":"affirming"}}}`, true},
		{"one of two is a warning", `{"submods":{"cpu0":{"ear.status":"affirming"},"gpu0":{"ear.status":"warning"}}}`, false},
		{"contraindicated", `{"submods":{"cpu0":{"ear.status":"contraindicated"}}}`, false},
		{"no status", `{"submods":{"cpu0":{}}}`, false},
		{"no submodule", `{"submods":{}}`, false},
		{"no submods", `{}`, false},
		{"status is a list", `{"submods":{"cpu0":{"ear.status":["affirming"]}}}`, false},
		{"submods is a list", `{"submods":[{"ear.status":"affirming"}]}`, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := p.Allow(t.Context(), []byte(tt.claims), request())
			if err != nil || got != tt.want {
				t.Fatalf("Allow = %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestOwnPolicy(t *testing.T) {
	for _, tt := range []struct {
		name, rule string
		want       bool
	}{
		{"true", `allow := true`, true},
		{"path and workload", `allow if { data["resource-path"] == ["app", "key", "1"]; data.workload == "web"; data.plugin == "resource" }`, true},
		{"another workload", `allow if data.workload == "db"`, false},
		{"the string true", `allow := "true"`, false},
		{"the number 1", `allow := 1`, false},
		{"an object", `allow := {"x": true}`, false},
		{"undefined", `allow if input.nosuch`, false},
		{"a set", `allow contains true`, false},
		{"some in", `allow if { some s in input.submods; s["ear.status"] == "affirming" }`, true},
		{"as Trustee's examples are written", "import rego.v1\ndefault allow = false\nallow if { input[\"submods\"][\"cpu0\"][\"ear.status\"] == \"affirming\" }", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := mustCompile(t, "package policy\n"+tt.rule).Allow(t.Context(), []byte(affirming), request())
			if err != nil || got != tt.want {
				t.Fatalf("Allow = %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestConflictingResultsDeny(t *testing.T) {
	p := mustCompile(t, "package policy\nallow := true if input.submods\nallow := false if input.submods")
	got, err := p.Allow(t.Context(), []byte(affirming), request())
	if err == nil || got {
		t.Fatalf("Allow = %v, %v, want an error", got, err)
	}
}

func TestEndlessPolicyIsDenied(t *testing.T) {
	p := mustCompile(t, `package policy
allow if {
	some i in numbers.range(1, 100000)
	some j in numbers.range(1, 100000)
	i * j == -1
}`)
	start := time.Now()
	got, err := p.Allow(t.Context(), []byte(affirming), request())
	if err == nil || got || !strings.Contains(err.Error(), "gave no answer within") {
		t.Fatalf("Allow = %v, %v, want a time-out", got, err)
	}
	if took := time.Since(start); took > 10*TimeLimit {
		t.Fatalf("took %v with a limit of %v", took, TimeLimit)
	}
}

func TestCancelledRequestIsDenied(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := mustCompile(t, "package policy\nallow := true").Allow(ctx, []byte(affirming), request()); err == nil || got {
		t.Fatalf("Allow = %v, %v, want an error", got, err)
	}
}

func TestMalformedClaimsAreDenied(t *testing.T) {
	p := mustCompile(t, "package policy\nallow := true")
	for _, claims := range []string{"", "{", `{"a":1}{`, `{"a":1,"a":2}`} {
		if got, err := p.Allow(t.Context(), []byte(claims), request()); err == nil || got {
			t.Errorf("Allow(%q) = %v, %v, want an error", claims, got, err)
		}
	}
}

func TestRefusedPolicies(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"syntax", "package policy\n\nallow if {", "policy line 3"},
		{"unknown function", "package policy\nallow if {\n  nosuch(1)\n}", "policy line 3"},
		{"other package", "# c\npackage other\nallow := true", "policy line 2: package other"},
		{"nested package", "package policy.inner\nallow := true", "want package policy"},
		{"no rule", "package policy\nalow := true", `no rule "allow"`},
		{"too large", "package policy\n#" + strings.Repeat("x", 300<<10), "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Compile: %v, want %q", err, tt.want)
			}
		})
	}
}

// What reaches out of the policy is refused when it is compiled, so at registration.
func TestImpureFunctionsAreRefused(t *testing.T) {
	for _, call := range []string{
		`http.send({"method": "get", "url": "http://127.0.0.1/"})`, `net.lookup_ip_addr("localhost")`, `net.cidr_contains("10.0.0.0/8", "10.0.0.1")`,
		`opa.runtime()`, `rand.intn("a", 10)`, `time.now_ns()`, `uuid.rfc4122("a")`, `trace("x")`, `io.jwt.decode_verify("x", {})`,
		`json.match_schema({}, {})`, `providers.aws.sign_req({}, {}, 1)`, `rego.parse_module("a", "package a")`, `print("x")`, `crypto.md5("x")`,
	} {
		if _, err := Compile(fmt.Sprintf("package policy\nallow if {\n  _ = %s\n}", call)); err == nil {
			t.Errorf("%s compiles", call)
		}
	}
}

// The list names functions that exist, and admits nothing that the library itself
// calls nondeterministic.
func TestBuiltinList(t *testing.T) {
	// Nil would mean that schemas may be fetched from anywhere.
	if c := capabilities(); c.AllowNet == nil || len(c.AllowNet) != 0 {
		t.Errorf("AllowNet is %v", c.AllowNet)
	}
	all := map[string]bool{}
	for _, b := range ast.CapabilitiesForThisVersion().Builtins {
		all[b.Name] = true
		if isPure(b) && b.IsNondeterministic() {
			t.Errorf("%s is nondeterministic and allowed", b.Name)
		}
	}
	for _, name := range pureBuiltins() {
		if !strings.HasSuffix(name, ".") && !all[name] {
			t.Errorf("%s is in the list and not in this OPA version", name)
		}
	}
}

func TestCache(t *testing.T) {
	c := NewCache()
	first, err := c.Compile("")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := c.Compile(""); again != first {
		t.Error("the same text was compiled twice")
	}
	if _, err := c.Compile("package policy"); err == nil {
		t.Error("a refused policy came back without its error")
	}
	for i := range maxCached + 1 {
		if _, err := c.Compile(fmt.Sprintf("package policy\nallow := %d > 1", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(c.compiled) > maxCached {
		t.Errorf("%d compiled policies are kept, want at most %d", len(c.compiled), maxCached)
	}
}

func BenchmarkAllow(b *testing.B) {
	p, err := Compile("")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if ok, err := p.Allow(b.Context(), []byte(affirming), request()); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
}
