// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

func TestHandshakeAndRelease(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "a secret")
	g := b.guest(doc).handshake()
	g.wantSecret(g.get("app/key/1"), "a secret")
	g.wantSecret(b.getBearer("app/key/1", g.token), "a secret")
	last := b.wantLast(audit.Release, "")
	if last.Workload != "web" || last.Resource != "app/key/1" || !last.TestRoot || last.InitData != digestOf(t, doc) {
		t.Errorf("record %+v", last)
	}
	// One id from the handshake to the release, which the guest was told as well.
	if a := g.get("app/key/1"); a.header.Get(correlationHeader) != last.ID || last.ID == "" {
		t.Errorf("guest was told %q, the log says %q", a.header.Get(correlationHeader), last.ID)
	}
	for _, secret := range []string{"a secret", g.token, g.cookie, ownerToken, g.nonce} {
		if strings.Contains(b.output.String(), secret) {
			t.Errorf("output has %q", secret)
		}
	}
}

// What the protocol's clients rely on, byte for byte.
func TestChallenge(t *testing.T) {
	b := newBroker(t)
	g := b.guest(nil)
	a := g.auth()
	raw, err := base64.StdEncoding.DecodeString(g.nonce)
	if err != nil || len(raw) != 32 || len(g.cookie) != 32 {
		t.Errorf("nonce %q, cookie %q", g.nonce, g.cookie)
	}
	if a.body != `{"nonce":"`+g.nonce+`","extra-params":""}` {
		t.Errorf("challenge is %s", a.body)
	}
	for _, want := range []string{"Expires=", "HttpOnly"} {
		if !strings.Contains(a.header.Get("Set-Cookie"), want) {
			t.Errorf("Set-Cookie is %s", a.header.Get("Set-Cookie"))
		}
	}
	first := g.nonce
	if g.auth(); g.nonce == first {
		t.Error("two sessions have one nonce")
	}
}

func TestAuthRequests(t *testing.T) {
	b := newBroker(t)
	for _, tt := range []struct {
		name, body string
		status     int
		variant    string
	}{
		{"good", `{"version":"0.4.0","tee":"snp","extra-params":""}`, 200, ""},
		{"sample, which a registration must list later", `{"version":"0.4.0","tee":"sample","extra-params":{}}`, 200, ""},
		{"older version", `{"version":"0.3.0","tee":"snp","extra-params":""}`, 401, "AttestationError"},
		{"newer version", `{"version":"0.4.1","tee":"snp","extra-params":""}`, 401, "AttestationError"},
		{"version with a v", `{"version":"v0.4.0","tee":"snp","extra-params":""}`, 401, "AttestationError"},
		{"no version", `{"tee":"snp","extra-params":""}`, 400, "InvalidRequest"},
		{"unknown TEE", `{"version":"0.4.0","tee":"sgx2","extra-params":""}`, 400, "InvalidRequest"},
		{"TEE without a verifier", `{"version":"0.4.0","tee":"cca","extra-params":""}`, 401, "AttestationError"},
		{"duplicate key", `{"version":"0.4.0","tee":"snp","tee":"sample","extra-params":""}`, 400, "InvalidRequest"},
		{"other case", `{"Version":"0.4.0","tee":"snp","extra-params":""}`, 400, "InvalidRequest"},
		{"unknown member", `{"version":"0.4.0","tee":"snp","extra-params":"","admin":true}`, 400, "InvalidRequest"},
		{"empty", ``, 400, "InvalidRequest"},
		{"not JSON", `hello`, 400, "InvalidRequest"},
		{"giant", `{"version":"` + strings.Repeat("0", evidence.MaxRequestSize) + `"}`, 413, "InvalidRequest"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := b.do(t.Context(), "POST", "/kbs/v0/auth", []byte(tt.body), nil)
			if a.status != tt.status || tt.status != 200 && a.variant(t) != tt.variant {
				t.Fatalf("answer %d %s, want %d %s", a.status, a.body, tt.status, tt.variant)
			}
			if a.status != 200 && a.header.Get("Set-Cookie") != "" {
				t.Error("a refused request gets a session")
			}
		})
	}
}

// The digest that binds the evidence is by the algorithm that was agreed on.
func TestOtherHash(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc)
	a := b.do(t.Context(), "POST", "/kbs/v0/auth", evidence.Request{TEE: evidence.SNP, Hashes: []evidence.HashAlgorithm{evidence.SHA256, evidence.SHA512}}.Encode(), nil)
	c, err := evidence.ParseChallenge([]byte(a.body))
	must(t, err)
	if c.Hash != evidence.SHA512 {
		t.Fatalf("chosen %s", c.Hash)
	}
	g.nonce, g.cookie = c.Nonce, cookieOf(t, a)
	wantRefused(t, g.attest(), 401, "AttestationError") // bound by SHA-384
	b.wantLast(audit.Attest, "report-data")
}

func TestReplayedAttestation(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc)
	g.auth()
	body := g.attestation()
	if a := g.post(body); a.status != http.StatusOK {
		t.Fatalf("attest: %d %s", a.status, a.body)
	}
	// The same request again, with its cookie.
	wantRefused(t, g.post(body), 401, "AttestationError")
	b.wantLast(audit.Replay, "nonce")
	// The same body in a session of the one who recorded it.
	thief := b.guest(doc)
	thief.auth()
	wantRefused(t, thief.post(body), 401, "AttestationError")
	b.wantLast(audit.Attest, "nonce")
	// Fresh evidence for the spent nonce; the log already says that it was replayed.
	before := len(b.records())
	wantRefused(t, g.attest(), 401, "AttestationError")
	if n := len(b.records()) - before; n != 0 {
		t.Errorf("%d records for a replay that the log already has", n)
	}
	// The first session goes on.
	b.put("web", "app/key/1", "v")
	g.wantSecret(g.get("app/key/1"), "v")
}

func TestFailedAttestationSpendsTheNonce(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	for _, tt := range []struct {
		name string
		body func(g *guest) []byte
	}{
		{"garbage", func(*guest) []byte { return []byte("{") }},
		{"nothing", func(*guest) []byte { return nil }},
		{"giant", func(*guest) []byte { return make([]byte, evidence.MaxAttestationSize+1) }},
		{"another nonce", func(g *guest) []byte {
			other := *g
			other.nonce = "b3RoZXI="
			return other.attestation()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := b.guest(doc)
			g.auth()
			good := g.attestation()
			if a := g.post(tt.body(g)); a.status == http.StatusOK {
				t.Fatalf("accepted: %s", a.body)
			}
			if list := b.records(); list[len(list)-1].Allowed || list[len(list)-1].ID == "" {
				t.Errorf("record %+v", list[len(list)-1])
			}
			wantRefused(t, g.post(good), 401, "AttestationError")
			b.wantLast(audit.Replay, "nonce")
			wantRefused(t, g.get("app/key/1"), 401, "TokenNotFound")
		})
	}
}

// However many copies of a request race, one is judged.
func TestNonceRace(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	g := b.guest(doc)
	g.auth()
	body := g.attestation()
	statuses := make([]int, 32)
	parallel(len(statuses), func(i int) {
		statuses[i] = b.do(t.Context(), "POST", "/kbs/v0/attest", body, map[string]string{"Cookie": "kbs-session-id=" + g.cookie}).status
	})
	if count(statuses, 200) != 1 || count(statuses, 401) != len(statuses)-1 {
		t.Errorf("statuses %v", statuses)
	}
}

func TestSessions(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	t.Run("no cookie", func(t *testing.T) {
		g := b.guest(doc)
		g.auth()
		wantRefused(t, b.do(t.Context(), "POST", "/kbs/v0/attest", g.attestation(), nil), 401, "AttestationError")
		b.wantLast(audit.Attest, "session")
	})
	t.Run("made-up cookie", func(t *testing.T) {
		g := b.guest(doc)
		g.auth()
		g.cookie = strings.Repeat("0", 32)
		wantRefused(t, g.attest(), 401, "AttestationError")
	})
	t.Run("cookie of another session", func(t *testing.T) {
		g, other := b.guest(doc), b.guest(doc)
		g.auth()
		other.auth()
		g.cookie = other.cookie
		wantRefused(t, g.attest(), 401, "AttestationError")
		b.wantLast(audit.Attest, "nonce")
	})
	t.Run("not attested yet", func(t *testing.T) {
		g := b.guest(doc)
		g.auth()
		wantRefused(t, g.get("app/key/1"), 401, "TokenNotFound")
	})
	t.Run("expired before attest", func(t *testing.T) {
		g := b.guest(doc)
		g.auth()
		b.later(sessionLife)
		wantRefused(t, g.attest(), 401, "AttestationError")
		b.wantLast(audit.Attest, "session")
	})
	t.Run("expired after attest", func(t *testing.T) {
		g := b.guest(doc).handshake()
		b.later(sessionLife - time.Second)
		g.wantSecret(g.get("app/key/1"), "v")
		b.later(time.Second)
		wantRefused(t, g.get("app/key/1"), 401, "TokenNotFound")
		wantRefused(t, b.getBearer("app/key/1", g.token), 401, "TokenVerifierError")
		b.wantLast(audit.Release, "token")
		b.server.sweep()
		if n := len(b.server.sessions.byID); n != 0 {
			t.Errorf("%d sessions are left", n)
		}
	})
}

// TestStrangersFillTheSessionTable: sessions that nobody attests in, which take no right to open, do not keep guests out.
func TestStrangersFillTheSessionTable(t *testing.T) {
	b := newBroker(t)
	b.server.sessions.max = 3
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	attested := b.guest(doc).handshake()
	first := b.guest(doc)
	first.auth()
	for range 4 {
		if a := b.guest(nil).auth(); a.status != 200 {
			t.Fatalf("auth: %d", a.status)
		}
	}
	if n := len(b.server.sessions.byID); n != 3 {
		t.Errorf("%d sessions", n)
	}
	attested.wantSecret(attested.get("app/key/1"), "v")
	other := b.guest(doc).handshake()
	other.wantSecret(other.get("app/key/1"), "v")
	wantRefused(t, first.attest(), 401, "AttestationError") // the oldest gave way
}

func TestSessionTableIsFull(t *testing.T) {
	b := newBroker(t)
	b.server.sessions.max = 2
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	for range 2 {
		b.guest(doc).handshake()
	}
	wantRefused(t, b.guest(nil).auth(), 503, "TooManyRequests")
	b.later(sessionLife)
	if a := b.guest(nil).auth(); a.status != 200 {
		t.Fatalf("auth after the others expired: %d", a.status)
	}
	if n := len(b.server.sessions.order); n != 1 {
		t.Errorf("%d sessions in line", n)
	}
}

func TestAttestationsThatAreDenied(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	replace := func(old, with string) func(g *guest) []byte {
		return func(g *guest) []byte {
			body := string(g.attestation())
			if !strings.Contains(body, old) {
				t.Fatalf("body has no %q", old)
			}
			return []byte(strings.Replace(body, old, with, 1))
		}
	}
	for _, tt := range []struct {
		name, rule string
		body       func(g *guest) []byte
	}{
		{"duplicate key in evidence", "request", replace(`"vmpl":0`, `"vmpl":0,"vmpl":0`)},
		{"unknown member in evidence", "format", replace(`"vmpl":0`, `"vmpl":0,"x":0`)},
		{"unknown member outside", "request", replace(`{"init-data"`, `{"x":1,"init-data"`)},
		{"truncated report", "format", replace(`"measurement":[171,`, `"measurement":[`)},
		{"over-long report", "format", replace(`"measurement":[`, `"measurement":[171,`)},
		{"wrong key algorithm", "request", replace(`"alg":"ECDH-ES+A256KW"`, `"alg":"RSA1_5"`)},
		{"key with another member", "request", replace(`"kty":"EC"`, `"kty":"EC","use":"enc"`)},
		{"initdata in JSON", "request", replace(`"format":"toml"`, `"format":"json"`)},
		{"devices nobody verifies", "additional-evidence", replace(`"additional_evidence":""`, `"additional_evidence":"{}"`)},
		{"debug guest", "debug", func(g *guest) []byte { g.params.Policy = 1<<17 | 1<<19; return g.attestation() }},
		{"VMPL 2", "vmpl", func(g *guest) []byte { g.params.VMPL = 2; return g.attestation() }},
		{"another measurement", "measurement", func(g *guest) []byte { g.params.Measurement = strings.Repeat("cd", 48); return g.attestation() }},
		{"zero host data", "host-data", func(g *guest) []byte { g.params.HostData = ""; return g.attestation() }},
		{"no initdata", "initdata", func(g *guest) []byte { g.doc = nil; return g.attestation() }},
		{"no initdata and zero host data", "initdata", func(g *guest) []byte { g.doc, g.params.HostData = nil, ""; return g.attestation() }},
		{"initdata that is not TOML", "initdata-listed", func(g *guest) []byte { g.doc = []byte("x"); return g.attestation() }},
		{"another TEE key than was bound", "report-data", func(g *guest) []byte {
			body := string(g.attestation())
			old := string(g.jwk.Canonical())
			g.newKey()
			return []byte(strings.Replace(body, old, string(g.jwk.Canonical()), 1))
		}},
		{"sample evidence in an SNP session", "format", func(g *guest) []byte { g.tee = evidence.Sample; return g.attestation() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := b.guest(doc)
			g.auth()
			a := g.post(tt.body(g))
			wantRefused(t, a, 401, "AttestationError")
			record := b.wantLast(audit.Attest, tt.rule)
			if record.Wanted == "" || record.Found == "" || record.ID == "" {
				t.Errorf("record %+v", record)
			}
			// The guest learns the rule and the id to ask about, no more.
			if !strings.Contains(a.body, "["+tt.rule+"]") || !strings.Contains(a.body, record.ID) {
				t.Errorf("answer %s", a.body)
			}
		})
	}
}

func TestHostWrittenInitData(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	for _, tt := range []struct {
		name string
		doc  []byte
		rule string
	}{
		{"names the workload with a looser policy", document(t, "web", "policy = \"allow all\"\n"), "initdata-listed"},
		{"names another workload", document(t, "db", ""), "initdata-listed"},
		{"names none", document(t, "", ""), "initdata-listed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := b.guest(tt.doc) // launched with it, so that HOST_DATA is right
			g.auth()
			wantRefused(t, g.attest(), 401, "AttestationError")
			b.wantLast(audit.Attest, tt.rule)
			wantRefused(t, g.get("app/key/1"), 401, "TokenNotFound")
		})
	}
	t.Run("the registered document, launched with another", func(t *testing.T) {
		g := b.guest(doc)
		g.params.HostData = b.guest(document(t, "web", "x = 1\n")).params.HostData
		g.auth()
		wantRefused(t, g.attest(), 401, "AttestationError")
		b.wantLast(audit.Attest, "host-data")
	})
	t.Run("a document that one workload lists and that names another", func(t *testing.T) {
		other := document(t, "web", "x = 2\n")
		b.register("db", other, nil)
		g := b.guest(other)
		g.auth()
		wantRefused(t, g.attest(), 401, "AttestationError")
		b.wantLast(audit.Attest, "initdata-listed")
	})
	t.Run("a listed document without a workload, or of none that is registered", func(t *testing.T) {
		for _, id := range []string{"", "gone", "../web", "WEB"} {
			odd := document(t, id, "")
			b.register("odd", odd, nil)
			g := b.guest(odd)
			g.auth()
			wantRefused(t, g.attest(), 401, "AttestationError")
			b.wantLast(audit.Attest, "workload")
		}
	})
}

// A document that takes the TOML reader hundreds of MiB: nobody listed it, so it is
// hashed and no more.
func TestUnlistedInitDataIsNotParsed(t *testing.T) {
	b := newBroker(t)
	b.register("web", document(t, "web", ""), nil)
	var doc bytes.Buffer
	doc.WriteString("version = '0.1.0'\nalgorithm = 'sha256'\n[data]\n")
	for i := 0; doc.Len() < evidence.MaxInitDataSize-32; i++ {
		fmt.Fprintf(&doc, "a.b.c.%d=''\n", i)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	denied, err := b.server.admission.screen(doc.Bytes())
	runtime.ReadMemStats(&after)
	if err != nil || denied == nil || denied.Rule != "initdata-listed" {
		t.Fatalf("screen: %+v, %v", denied, err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated", n)
	}
	g := b.guest(nil)
	g.doc = doc.Bytes()
	g.auth()
	body := g.attestation()
	runtime.ReadMemStats(&before)
	wantRefused(t, g.post(body), 401, "AttestationError")
	runtime.ReadMemStats(&after)
	b.wantLast(audit.Attest, "initdata-listed")
	if n := after.TotalAlloc - before.TotalAlloc; n > 32<<20 {
		t.Errorf("the request allocated %d bytes", n)
	}
}

// A document that is listed by a digest of another algorithm than its own is not taken.
func TestInitDataListedByAnotherAlgorithm(t *testing.T) {
	b := newBroker(t)
	doc := document(t, "web", "")
	sum, err := evidence.SHA512.Sum(doc)
	must(t, err)
	b.register("web", doc, func(r *owner.Registration) {
		r.InitData = []string{verifier.Digest{Algorithm: evidence.SHA512, Sum: sum}.String()}
	})
	g := b.guest(doc)
	g.auth()
	wantRefused(t, g.attest(), 401, "AttestationError")
	b.wantLast(audit.Attest, "initdata-listed")
}

// Parsing takes one of the slots of verification: a listed document waits for it, one
// that is not listed needs none.
func TestInitDataIsParsedInASlot(t *testing.T) {
	b := newBroker(t)
	listed := []byte("x") // is denied as soon as it is parsed
	sum, err := evidence.SHA256.Sum(listed)
	must(t, err)
	b.register("web", document(t, "web", ""), func(r *owner.Registration) {
		r.InitData = []string{verifier.Digest{Algorithm: evidence.SHA256, Sum: sum}.String()}
	})
	for range cap(b.server.verifying) {
		b.server.verifying <- struct{}{}
	}
	g := b.guest([]byte("y"))
	g.auth()
	wantRefused(t, g.attest(), 401, "AttestationError")
	b.wantLast(audit.Attest, "initdata-listed")

	g = b.guest(listed)
	g.auth()
	body, answered := g.attestation(), make(chan answer, 1)
	go func() { answered <- g.post(body) }()
	select {
	case a := <-answered:
		t.Errorf("answered without a slot: %d %s", a.status, a.body)
	case <-time.After(200 * time.Millisecond):
		<-b.server.verifying
		wantRefused(t, <-answered, 401, "AttestationError")
	}
	b.wantLast(audit.Attest, "initdata")
}

// Listed by mistake: a document that is none.
func TestListedInitDataThatIsNotOne(t *testing.T) {
	b := newBroker(t)
	b.register("web", document(t, "web", ""), func(r *owner.Registration) {
		sum, err := evidence.SHA256.Sum([]byte("x"))
		must(t, err)
		r.InitData = []string{verifier.Digest{Algorithm: evidence.SHA256, Sum: sum}.String()}
	})
	g := b.guest([]byte("x"))
	g.auth()
	wantRefused(t, g.attest(), 401, "AttestationError")
	b.wantLast(audit.Attest, "initdata")
}

// Nested tables make the TOML reader slow; a document that nobody listed is not looked
// into.
func TestInitDataThatIsSlowToRead(t *testing.T) {
	b := newBroker(t)
	b.register("web", document(t, "web", ""), nil)
	g := b.guest(document(t, "web", "a"+strings.Repeat(".a", 20000)+" = 1\n"))
	g.auth()
	start := time.Now()
	wantRefused(t, g.attest(), 401, "AttestationError")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("took %v", took)
	}
	b.wantLast(audit.Attest, "initdata-listed")
}

func TestSampleOnlyWhereListed(t *testing.T) {
	b := newBroker(t)
	doc, plain := document(t, "dev", ""), document(t, "web", "")
	b.register("web", plain, nil)
	b.put("web", "app/key/1", "v")
	g := b.guest(plain)
	g.tee = evidence.Sample
	g.auth()
	wantRefused(t, g.attest(), 401, "AttestationError")
	b.wantLast(audit.Attest, "tee-listed")

	b.register("dev", doc, func(r *owner.Registration) {
		r.TEEs, r.SNP, r.TestRoots = []evidence.TEE{evidence.Sample}, nil, false
		r.Policy = "package policy\nallow := true"
		r.AcceptUnproved = []owner.Part{owner.PartAgent, owner.PartInitData}
	})
	b.put("dev", "app/key/1", "dev value")
	g = b.guest(doc)
	g.tee = evidence.Sample
	g.handshake()
	g.wantSecret(g.get("app/key/1"), "dev value")
	// Its claims do not pass for hardware: the built-in policy denies.
	r := owner.Registration{ID: "dev", TEEs: []evidence.TEE{evidence.Sample}, InitData: []string{digestOf(t, doc)}}
	if _, err := b.owner.Register(t.Context(), r); err == nil {
		t.Error("sample without a policy of its own is registered")
	}
}
