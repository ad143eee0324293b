// SPDX-License-Identifier: Apache-2.0

package token

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

func newIssuer(t testing.TB) *Issuer {
	t.Helper()
	key, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	i, err := NewIssuer(key, "test")
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func grant(t testing.TB) Grant {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := evidence.NewECJWK(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	runtimeData, err := evidence.NewRuntimeData("nonce", jwk, "")
	if err != nil {
		t.Fatal(err)
	}
	return Grant{
		ID: "00ff", Workload: "web", RuntimeData: runtimeData,
		Verdict: verifier.Verdict{
			Facts: verifier.Facts{TEE: evidence.SNP, Measurement: "ab", InitData: "sha256:cdef", Product: "milan",
				TCB: owner.TCB{SNP: 24}, TestRoot: true},
			Claims: []byte(`{"measurement":"ab"}`),
			Vector: verifier.Vector{Hardware: 2, Executables: 3, Configuration: 2},
		},
	}
}

func issue(t testing.TB, i *Issuer, now time.Time) string {
	t.Helper()
	token, err := i.Issue(grant(t), now)
	if err != nil {
		t.Fatal(err)
	}
	return string(token)
}

func TestRoundTrip(t *testing.T) {
	i, g, now := newIssuer(t), grant(t), time.Now()
	token, err := i.Issue(g, now)
	if err != nil {
		t.Fatal(err)
	}
	v, err := i.Verify(string(token), now.Add(Lifetime-2*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	if v.ID != g.ID || v.Workload != g.Workload || v.Facts != g.Verdict.Facts || !v.TEEKey.Equal(g.RuntimeData.TEEKey()) {
		t.Errorf("got %+v", v)
	}
}

// Another implementation verifies the token and finds the claims where Trustee's
// clients and policies look for them.
func TestAgainstGoJOSE(t *testing.T) {
	i, g, now := newIssuer(t), grant(t), time.Now()
	token, err := i.Issue(g, now)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.ParseSigned(string(token), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	var std jwt.Claims
	if err := parsed.Claims(&i.key.PublicKey, &claims, &std); err != nil {
		t.Fatal(err)
	}
	if err := std.Validate(jwt.Expected{Issuer: "casemate-keybroker", Time: now}); err != nil {
		t.Error(err)
	}
	for path, want := range map[string]string{
		"eat_profile":                                                                 `"tag:github.com,2024:confidential-containers/Trustee"`,
		"submods.cpu0.ear.status":                                                     `"affirming"`,
		"submods.cpu0.ear.appraisal-policy-id":                                        `"default"`,
		"submods.cpu0.ear.trustworthiness-vector.hardware":                            `2`,
		"submods.cpu0.ear.veraison.annotated-evidence.snp.measurement":                `"ab"`,
		"submods.cpu0.ear.veraison.annotated-evidence.test_root":                      `true`,
		"submods.cpu0.ear.veraison.annotated-evidence.init_data":                      `"cdef"`,
		"submods.cpu0.ear.veraison.annotated-evidence.runtime_data_claims.nonce":      `"nonce"`,
		"submods.cpu0.ear.veraison.annotated-evidence.runtime_data_claims.tee-pubkey": string(g.RuntimeData.TEEKey().Canonical()),
		"casemate.workload":                                                           `"web"`,
		"casemate.facts.measurement":                                                  `"ab"`,
	} {
		got, err := json.Marshal(find(claims, path))
		if err != nil || string(got) != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
}

// find follows member names, which hold dots themselves, as far as they match.
func find(v any, path string) any {
	if path == "" {
		return v
	}
	m, _ := v.(map[string]any)
	for name, inner := range m {
		if rest, ok := strings.CutPrefix(path+".", name+"."); ok {
			if found := find(inner, strings.TrimSuffix(rest, ".")); found != nil {
				return found
			}
		}
	}
	return nil
}

func TestExpiry(t *testing.T) {
	i, now := newIssuer(t), time.Unix(1_800_000_000, 0)
	token := issue(t, i, now)
	if _, err := i.Verify(token, now.Add(Lifetime-time.Second)); err != nil {
		t.Error(err)
	}
	for _, at := range []time.Duration{Lifetime, Lifetime + time.Hour} {
		if _, err := i.Verify(token, now.Add(at)); !errors.Is(err, ErrExpired) {
			t.Errorf("after %v: %v", at, err)
		}
	}
}

func TestForeignTokens(t *testing.T) {
	i, now := newIssuer(t), time.Now()
	good := issue(t, i, now)
	parts := strings.Split(good, ".")
	other := newIssuer(t)
	resign := func(key *ecdsa.PrivateKey, header, claims string) string {
		signed := encode([]byte(header)) + "." + claims
		digest := sha256.Sum256([]byte(signed))
		r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
		if err != nil {
			t.Fatal(err)
		}
		return signed + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
	}
	point, err := other.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	ownKey := fmt.Sprintf(`{"alg":"ES256","jwk":{"alg":"ES256","crv":"P-256","kty":"EC","x":%q,"y":%q},"typ":"JWT"}`,
		encode(point[1:33]), encode(point[33:]))
	tampered := strings.Replace(decoded(t, parts[1]), `"workload":"web"`, `"workload":"db1"`, 1)
	for _, tt := range []struct{ name, token, want string }{
		{"another issuer's", issue(t, other, now), "header"},
		{"brings its own key", resign(other.key, ownKey, parts[1]), "header"},
		{"alg none", encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".", "header"},
		{"alg none with the signature", encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + "." + parts[2], "header"},
		{"HS256", encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + parts[1] + "." + parts[2], "header"},
		{"our kid, another key", resign(other.key, decoded(t, parts[0]), parts[1]), "signature does not verify"},
		{"our key, header with jwk", resign(i.key, ownKey, parts[1]), "header"},
		{"another workload", parts[0] + "." + encode([]byte(tampered)) + "." + parts[2], "signature does not verify"},
		{"no signature", parts[0] + "." + parts[1] + ".", "signature is 0 bytes"},
		{"zero signature", parts[0] + "." + parts[1] + "." + encode(make([]byte, 64)), "does not verify"},
		{"short signature", parts[0] + "." + parts[1] + "." + parts[2][:40], "signature"},
		{"line break in the signature", parts[0] + "." + parts[1] + "." + parts[2][:40] + "\n" + parts[2][40:], "base64url"},
		{"other spelling of the signature", good[:len(good)-1] + otherSpelling(good[len(good)-1]), "decoding token signature"},
		{"padded", good + "=", "decoding"},
		{"two parts", parts[0] + "." + parts[1], "2 parts"},
		{"four parts", good + ".x", "4 parts"},
		{"empty", "", "1 parts"},
		{"too long", strings.Repeat("a", MaxSize+1), "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := i.Verify(tt.token, now); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Verify: %v, want %q", err, tt.want)
			}
		})
	}
}

// otherSpelling sets unused bits of the last character: 64 bytes leave four of them.
func otherSpelling(c byte) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	return string(alphabet[strings.IndexByte(alphabet, c)|1])
}

func decoded(t *testing.T, part string) string {
	t.Helper()
	raw, err := decode(part)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func TestEveryFlippedByteIsRefused(t *testing.T) {
	i, now := newIssuer(t), time.Now()
	good := []byte(issue(t, i, now))
	for at := range good {
		bad := append([]byte(nil), good...)
		if bad[at] = 'A'; good[at] == 'A' {
			bad[at] = 'B'
		}
		if _, err := i.Verify(string(bad), now); err == nil {
			t.Fatalf("byte %d changed, and accepted", at)
		}
	}
}

func TestStatus(t *testing.T) {
	for _, tt := range []struct {
		want   string
		claims []int
	}{
		{"affirming", []int{2, 3, 2}}, {"affirming", []int{2, 0, 0}}, {"none", []int{0, 1}}, {"none", nil},
		{"warning", []int{2, 33}}, {"contraindicated", []int{97, 2}}, {"contraindicated", []int{-97, 2}},
	} {
		if got := status(tt.claims...); got != tt.want {
			t.Errorf("status%v = %s, want %s", tt.claims, got, tt.want)
		}
	}
}

func TestKeys(t *testing.T) {
	if _, err := NewIssuer([]byte("x"), ""); err == nil {
		t.Error("garbage is taken as key")
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewIssuer(der, ""); err == nil {
		t.Error("a P-384 key is taken for ES256")
	}
}

func FuzzVerify(f *testing.F) {
	i := newIssuer(f)
	now := time.Now()
	good := issue(f, i, now)
	f.Add(good)
	f.Add("..")
	f.Add(i.header + ".e30." + encode(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, token string) {
		if _, err := i.Verify(token, now); err == nil && token != good {
			t.Fatalf("accepted %q", token)
		}
	})
}
