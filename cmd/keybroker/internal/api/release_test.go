// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// A guest of one workload gets nothing of another, whatever it calls it.
func TestOtherWorkloadsSecrets(t *testing.T) {
	b := newBroker(t)
	docA, docB := document(t, "a", ""), document(t, "b", "")
	b.register("a", docA, nil)
	b.register("b", docB, func(r *owner.Registration) { r.Policy = "package policy\nallow := true" })
	b.put("a", "app/key/1", "of a")
	b.put("b", "app/key/1", "of b")
	b.put("b", "only/in/b", "of b")
	a, other := b.guest(docA).handshake(), b.guest(docB).handshake()
	a.wantSecret(a.get("app/key/1"), "of a")
	other.wantSecret(other.get("app/key/1"), "of b")
	wantRefused(t, a.get("only/in/b"), 404, "ResourceNotFound")
	b.wantLast(audit.Release, "resource")
	for _, path := range []string{"b/app/key/1", "b%00app/key/1", "../b/app/key/1", "app/key/..", "b%2Fapp/key/1", "app/key/1%00", "app//1", "app/key/1/", "./app/key/1"} {
		if got := a.get(path); got.status != 404 || got.variant(t) != "InvalidRequestPath" && got.variant(t) != "PluginNotFound" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	// The token of b opens b's secrets for b's key only.
	if _, err := a.open(b.getBearer("app/key/1", other.token)); err == nil {
		t.Error("a opens what is encrypted to b")
	}
}

func TestPolicies(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.put("web", "app/key/1", "v")
	for _, tt := range []struct {
		name, policy string
		status       int
	}{
		{"built in", "", 200},
		{"allows", "package policy\nallow := true", 200},
		{"denies", "package policy\nallow := false", 403},
		{"default deny", "package policy\ndefault allow := false\nallow if input.x", 403},
		{"this path", `package policy
allow if { data["resource-path"] == ["app", "key", "1"]; data.plugin == "resource"; data.workload == "web" }`, 200},
		{"another path", `package policy
allow if data["resource-path"][0] == "other"`, 403},
		{"with a query", `package policy
allow if data.query.stage == "boot"`, 200},
		{"the claims", `package policy
allow if { input.submods.cpu0["ear.veraison.annotated-evidence"].snp.measurement == input.casemate.facts.measurement; input.casemate.workload == "web" }`, 200},
		{"debug refused by the policy as well", `package policy
allow if input.submods.cpu0["ear.veraison.annotated-evidence"].snp.policy_debug_allowed == true`, 403},
		{"an error", "package policy\nallow := 1 / to_number(input.iss)", 403},
		{"no end", "package policy\nallow if { some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i * j == -1 }", 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.register("web", doc, func(r *owner.Registration) { r.Policy = tt.policy })
			g := b.guest(doc).handshake()
			a := g.get("app/key/1?stage=boot")
			if tt.status == 200 {
				g.wantSecret(a, "v")
				return
			}
			wantRefused(t, a, tt.status, "PolicyDeny")
			b.wantLast(audit.Release, "policy")
			// What exists and what does not look the same to who may not have it.
			wantRefused(t, g.get("app/key/none"), 403, "PolicyDeny")
		})
	}
}

// The registration counts as it is at the release, not as it was at the handshake.
func TestRegistrationChanges(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	for _, tt := range []struct {
		name, rule string
		change     func(t *testing.T)
	}{
		{"initdata taken off the list", "initdata-listed", func(*testing.T) {
			b.register("web", document(t, "web", "x = 1\n"), nil)
		}},
		{"measurement replaced", "measurement", func(*testing.T) {
			b.register("web", doc, func(r *owner.Registration) { r.SNP.Measurements = []string{strings.Repeat("cd", 48)} })
		}},
		{"firmware minimum raised", "tcb-minimum", func(*testing.T) {
			b.register("web", doc, func(r *owner.Registration) { r.SNP.MinimumTCB = map[string]owner.TCB{owner.Milan: {SNP: 25}} })
		}},
		{"test roots no longer taken", "test-root", func(*testing.T) {
			b.register("web", doc, func(r *owner.Registration) { r.TestRoots = false })
		}},
		{"policy tightened", "policy", func(*testing.T) {
			b.register("web", doc, func(r *owner.Registration) { r.Policy = "package policy\nallow := false" })
		}},
		{"workload removed", "workload", func(t *testing.T) {
			if err := b.owner.Unregister(t.Context(), "web"); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b.register("web", doc, nil)
			b.put("web", "app/key/1", "v")
			g := b.guest(doc).handshake()
			g.wantSecret(g.get("app/key/1"), "v")
			tt.change(t)
			for _, a := range []answer{g.get("app/key/1"), b.getBearer("app/key/1", g.token)} {
				wantRefused(t, a, 403, "PolicyDeny")
				b.wantLast(audit.Release, tt.rule)
			}
		})
	}
}

// A debug guest attests with initdata that says so: only a registration that says so too
// takes it, and no longer than it says it.
func TestDebugGuests(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "debug = true\n")
	attest := func(doc []byte) answer { g := b.guest(doc); g.auth(); return g.attest() }
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	wantRefused(t, attest(doc), 401, "AttestationError")
	b.wantLast(audit.Attest, "debug-guest")

	admit := func(r *owner.Registration) { r.Debug, r.SNP.Debug = true, true }
	b.register("web", doc, admit)
	g := b.guest(doc).handshake()
	g.wantSecret(g.get("app/key/1"), "v")
	b.register("web", doc, nil)
	wantRefused(t, g.get("app/key/1"), 403, "PolicyDeny")
	b.wantLast(audit.Release, "debug-guest")

	for _, unclear := range []string{"debug = 'true'\n", "debug = 1\n"} {
		doc := document(t, "web", unclear)
		b.register("web", doc, admit)
		wantRefused(t, attest(doc), 401, "AttestationError")
		b.wantLast(audit.Attest, "workload")
	}
}

func TestSecretsAreReadAtEveryRelease(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	wantRefused(t, g.get("app/key/1"), 404, "ResourceNotFound")
	b.put("web", "app/key/1", "one")
	g.wantSecret(g.get("app/key/1"), "one")
	b.put("web", "app/key/1", "two")
	g.wantSecret(g.get("app/key/1"), "two")
	must(t, b.owner.DeleteSecret(t.Context(), "web", "app/key/1"))
	wantRefused(t, g.get("app/key/1"), 404, "ResourceNotFound")
}

// What is released once goes to one of any number of guests that ask for it, and the owner sees that it is gone. A value
// in its place is one of its own kind.
func TestSecretsThatAreReleasedOnce(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	once := func(value string) {
		t.Helper()
		if stored, err := b.owner.PutSecretOnce(t.Context(), "web", "app/grant/1", []byte(value)); err != nil || !stored.Once {
			t.Fatalf("%+v, %v", stored, err)
		}
	}
	once("leave")
	list, err := b.owner.Secrets(t.Context(), "web")
	if err != nil || len(list) != 1 || !list[0].Once {
		t.Errorf("list %+v, %v", list, err)
	}
	var got atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		g := b.guest(doc).handshake()
		wg.Go(func() {
			if a := g.get("app/grant/1"); a.status == 200 {
				g.wantSecret(a, "leave")
				got.Add(1)
			}
		})
	}
	wg.Wait()
	if got.Load() != 1 {
		t.Errorf("%d guests got it, want 1", got.Load())
	}
	g := b.guest(doc).handshake()
	wantRefused(t, g.get("app/grant/1"), 404, "ResourceNotFound")
	if list, err := b.owner.Secrets(t.Context(), "web"); err != nil || len(list) > 0 {
		t.Errorf("list %+v, %v", list, err)
	}
	once("again")
	b.put("web", "app/grant/1", "for good")
	for range 2 {
		g.wantSecret(g.get("app/grant/1"), "for good")
	}
	once("the last")
	must(t, b.owner.DeleteSecret(t.Context(), "web", "app/grant/1"))
	wantRefused(t, g.get("app/grant/1"), 404, "ResourceNotFound")
	once("gone with its workload")
	must(t, b.owner.Unregister(t.Context(), "web"))
	b.register("web", doc, nil)
	g = b.guest(doc).handshake()
	wantRefused(t, g.get("app/grant/1"), 404, "ResourceNotFound")
}

func TestTokens(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	g := b.guest(doc).handshake()
	parts := strings.Split(g.token, ".")
	other := newBroker(t)
	otherDoc := document(t, "web", "")
	other.register("web", otherDoc, nil)
	stranger := other.guest(otherDoc).handshake()
	for _, tt := range []struct{ name, token, variant string }{
		{"of another keybroker", stranger.token, "TokenVerifierError"},
		{"alg none", base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", "TokenVerifierError"},
		{"without signature", parts[0] + "." + parts[1] + ".", "TokenVerifierError"},
		{"signature of another token", parts[0] + "." + parts[1] + "." + strings.Split(stranger.token, ".")[2], "TokenVerifierError"},
		{"garbage", "x", "TokenVerifierError"},
		{"nothing", "", "TokenNotFound"},
		{"the owner's", ownerToken, "TokenVerifierError"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			wantRefused(t, b.getBearer("app/key/1", tt.token), 401, tt.variant)
			b.wantLast(audit.Release, "token")
		})
	}
	// A cookie that no longer counts does not hide a token that does, and the reverse.
	a := b.do(t.Context(), "GET", "/kbs/v0/resource/app/key/1", nil,
		map[string]string{"Authorization": "bearer " + g.token, "Cookie": "kbs-session-id=" + strings.Repeat("0", 32)})
	g.wantSecret(a, "v")
	a = b.do(t.Context(), "GET", "/kbs/v0/resource/app/key/1", nil, map[string]string{"Authorization": "Bearer x", "Cookie": "kbs-session-id=" + g.cookie})
	g.wantSecret(a, "v")
	if strings.Contains(b.output.String(), parts[2]) {
		t.Error("output has a token")
	}
}

func TestPathsAndMethods(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	g := b.guest(doc).handshake()
	for _, tt := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/kbs/v0/resource/app/key/1", 200},
		{"HEAD", "/kbs/v0/resource/app/key/1", 404},
		{"POST", "/kbs/v0/resource/app/key/1", 404},
		{"DELETE", "/kbs/v0/resource/app/key/1", 404},
		{"GET", "/kbs/v0/resource/app/key", 404},
		{"GET", "/kbs/v0/resource/app/key/1/2", 404},
		{"GET", "/kbs/v0/resource/.app/key/1", 404},
		{"GET", "/kbs/v0/resource/app/k%65y/1", 404},
		{"GET", "/kbs/v0/resource/app/key/1%2e", 404},
		{"GET", "/kbs/v0/resource/app/key/" + strings.Repeat("1", 400), 404},
		{"GET", "/kbs/v0/resource/app/key/1?a=1&a=2", 400},
		{"GET", "/kbs/v0/resource/app/key/1?a=%zz", 400},
		{"GET", "/kbs/v0/pkcs11/app/key/1", 404},
		{"GET", "/kbs/v0/auth", 404},
		{"GET", "/kbs/v0/attest", 404},
		{"POST", "/kbs/v0/resource-policy", 404},
		{"GET", "/", 404},
		{"GET", "/healthz", 200},
	} {
		a := b.do(t.Context(), tt.method, tt.path, nil, map[string]string{"Cookie": "kbs-session-id=" + g.cookie})
		if a.status != tt.status {
			t.Errorf("%s %s: %d %s, want %d", tt.method, tt.path, a.status, a.body, tt.status)
		}
		if a.status != 200 && tt.method != "HEAD" {
			a.variant(t)
		}
	}
}

// A verdict that cannot be recorded is not acted on.
func TestNoReleaseWithoutARecord(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	g, fresh := b.guest(doc).handshake(), b.guest(doc)
	fresh.auth()
	must(t, b.server.audit.Close())
	wantRefused(t, g.get("app/key/1"), 500, "InternalError")
	wantRefused(t, fresh.attest(), 500, "InternalError")
	wantRefused(t, fresh.get("app/key/1"), 500, "InternalError")
	if fresh.token != "" {
		t.Error("a token was issued without a record")
	}
}

func TestPolicyTimeIsBounded(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, func(r *owner.Registration) {
		r.Policy = "package policy\nallow if { count({x | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); x := [i, j]}) == 1 }"
	})
	g := b.guest(doc).handshake()
	start := time.Now()
	wantRefused(t, g.get("app/key/1"), 403, "PolicyDeny")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestBinarySecrets(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc).handshake()
	for i, value := range []string{"\x00", "\xff\xfe\n", strings.Repeat("\x00", owner.MaxSecretSize)} {
		path := fmt.Sprintf("app/bin/%d", i)
		b.put("web", path, value)
		g.wantSecret(g.get(path), value)
	}
}
