// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

const anyName = `,'signedIdentity':{'type':'matchDigestOnly'}`

// verdict judges one signature of digest, for an image requested by a tag.
func verdict(t testing.TB, text string, s Signature) error {
	t.Helper()
	digest := digestOf("image")
	return policy(t, text).Check(context.Background(), subject(t, "quay.io/team/app:v1", digest), holding(digest, s))
}

// wantVerdict checks an error of Check: want is part of a refusal, "" admits.
func wantVerdict(t testing.TB, err error, want string) {
	t.Helper()
	if want == "" && err == nil {
		return
	}
	if want == "" || !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// forms runs a test for a bundle and for annotations.
func forms(t *testing.T, name string, f func(t *testing.T, m *mint)) {
	for form, dsse := range map[string]bool{"annotations": false, "bundle": true} {
		t.Run(name+"/"+form, func(t *testing.T) {
			m := newMint(t, dsse)
			if m.payload = payloadFor("quay.io/team/app:v1", digestOf("image")); dsse {
				m.payload = statementFor(digestOf("image").String())
			}
			f(t, m)
		})
	}
}

// spec is the part of an entry's body that differs by its kind.
func (e *wireEntry) spec() map[string]any { return e.Body["spec"].(map[string]any) }

// TestKeyless has one case for each way in which a certificate or its log entry can be wrong.
func TestKeyless(t *testing.T) {
	other := newECDSA(t, elliptic.P256(), crypto.SHA256)
	leaf := func(f func(*x509.Certificate)) func(*mint) { return func(m *mint) { m.leaf = f } }
	tests := []struct {
		name  string
		spoil func(*mint)
		want  string
	}{
		{"good", func(*mint) {}, ""},
		{"older issuer extension alone", leaf(func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[:1] }), ""},
		{"newer issuer extension alone", leaf(func(c *x509.Certificate) { c.ExtraExtensions = c.ExtraExtensions[1:] }), ""},
		{"two addresses", leaf(func(c *x509.Certificate) { c.EmailAddresses = []string{"a@example.com", mintEmail} }), ""},

		{"logged before the certificate", func(m *mint) { m.entry = func(e *wireEntry) { e.Time -= 61 } }, "not yet valid"},
		{"logged after the certificate", func(m *mint) { m.entry = func(e *wireEntry) { e.Time += 9*60 + 1 } }, "expired"},
		{"valid by the clock, not when logged", leaf(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		}), "not yet valid"},
		{"time changed after the log signed", func(m *mint) { m.logged = func(e *wireEntry) { e.Time++ } }, "not signed by its log"},
		{"index changed after the log signed", func(m *mint) { m.logged = func(e *wireEntry) { e.Index++ } }, "not signed by its log"},
		{"body changed after the log signed", func(m *mint) { m.logged = func(e *wireEntry) { e.raw[len(e.raw)-1] = ' ' } }, "not signed by its log"},
		{"no signature of the log", func(m *mint) { m.logged = func(e *wireEntry) { e.SET = nil } }, "without a signed timestamp"},
		{"signature of the log cut", func(m *mint) { m.logged = func(e *wireEntry) { e.SET = e.SET[:len(e.SET)-1] } }, "not signed by its log"},
		{"negative index", func(m *mint) { m.entry = func(e *wireEntry) { e.Index = -1 } }, "index -1"},
		{"index beyond exact numbers", func(m *mint) { m.entry = func(e *wireEntry) { e.Index = 1 << 53 } }, "index 9007199254740992"},
		{"time zero", func(m *mint) { m.entry = func(e *wireEntry) { e.Time = 0 } }, "time 0"},
		{"time negative", func(m *mint) { m.entry = func(e *wireEntry) { e.Time = -5 } }, "time -5"},
		{"another log", func(m *mint) { m.log = other }, "a log that is not accepted"},
		{"another log under the name of this", func(m *mint) {
			id := m.enter(nil, "").LogID
			m.log, m.entry = other, func(e *wireEntry) { e.LogID = id }
		}, "not signed by its log"},
		{"entry of another payload", func(m *mint) {
			m.entry = func(e *wireEntry) {
				hash := map[string]any{"algorithm": "sha256", "value": digestOf("x").Hex}
				if m.dsse {
					e.spec()["payloadHash"] = hash
				} else {
					e.spec()["data"] = map[string]any{"hash": hash}
				}
			}
		}, "another payload"},
		{"entry under a weak hash", func(m *mint) {
			m.entry = func(e *wireEntry) {
				hash := map[string]any{"algorithm": "sha1", "value": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}
				if m.dsse {
					e.spec()["payloadHash"] = hash
				} else {
					e.spec()["data"] = map[string]any{"hash": hash}
				}
			}
		}, "another payload"},
		{"entry of another signature", func(m *mint) {
			m.entry = func(e *wireEntry) { e.Body = m.body([]byte("x"), pemOf(m.certificate())) }
		}, "another signature"},
		{"entry of another certificate of the same key", func(m *mint) {
			var signature []byte
			m.signature = func(s []byte) []byte { return s }
			m.entry = func(e *wireEntry) {
				if m.dsse {
					signature = e.spec()["signatures"].([]any)[0].(map[string]any)["signature"].([]byte)
				} else {
					signature = e.spec()["signature"].(map[string]any)["content"].([]byte)
				}
				e.Body = m.body(signature, pemOf(m.certificate()))
			}
		}, "another signer"},
		{"entry of another kind", func(m *mint) { m.entry = func(e *wireEntry) { e.Body["kind"] = "intoto" } }, `of kind "intoto"`},
		{"entry of another version", func(m *mint) { m.entry = func(e *wireEntry) { e.Body["apiVersion"] = "0.0.2" } }, "0.0.2"},
		{"entry with an unknown member", func(m *mint) { m.entry = func(e *wireEntry) { e.Body["extra"] = 1 } }, "extra"},

		{"another root", func(m *mint) { m.issuer = newCA(t, nil) }, "unknown authority"},
		{"the signer as its own root", func(m *mint) {
			self := *m.root.cert
			self.PublicKey, self.PublicKeyAlgorithm, self.SubjectKeyId, self.AuthorityKeyId = nil, 0, nil, nil
			m.issuer = &ca{t, m.key, &self}
			m.issuer.cert = m.issuer.sign(&self, m.key)
		}, "unknown authority"},
		{"another identity", leaf(func(c *x509.Certificate) { c.EmailAddresses = []string{"evil@example.com"} }), "want \"ci@example.com\""},
		{"identity in another case", leaf(func(c *x509.Certificate) { c.EmailAddresses = []string{"CI@example.com"} }), "want \"ci@example.com\""},
		{"identity as a prefix", leaf(func(c *x509.Certificate) { c.EmailAddresses = []string{mintEmail + ".evil"} }), "want \"ci@example.com\""},
		{"identity as a host name", leaf(func(c *x509.Certificate) { c.EmailAddresses, c.DNSNames = nil, []string{mintEmail} }), "want \"ci@example.com\""},
		{"identity in the subject alone", leaf(func(c *x509.Certificate) {
			c.EmailAddresses, c.Subject = nil, pkix.Name{CommonName: mintEmail}
		}), "want \"ci@example.com\""},
		{"another issuer", leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{plainExtension("https://evil.example"), utf8Extension(t, "https://evil.example")}
		}), "evil.example"},
		{"issuer with a slash behind", leaf(func(c *x509.Certificate) { c.ExtraExtensions = []pkix.Extension{plainExtension(mintIssuer + "/")} }), "identity provider"},
		{"two issuers", leaf(func(c *x509.Certificate) { c.ExtraExtensions[0] = plainExtension("https://evil.example") }), "two identity providers"},
		{"issuer in the wrong type", leaf(func(c *x509.Certificate) {
			c.ExtraExtensions[1].Value = []byte(mintIssuer)
		}), "no UTF8String"},
		{"no issuer", leaf(func(c *x509.Certificate) { c.ExtraExtensions = nil }), "no identity provider"},
		{"for servers", leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "not for signing code"},
		{"for no named use", leaf(func(c *x509.Certificate) { c.ExtKeyUsage = nil }), "not for signing code"},
		{"key not for signatures", leaf(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "not for signing code"},
		{"a CA", leaf(func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }), "one of a CA"},
		{"a critical extension that nobody knows", leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: []int{1, 2, 3}, Critical: true})
		}), "unhandled critical extension"},
		{"signed by another key than the certificate's", func(m *mint) {
			m.certified = &other
		}, "not by the key of its certificate"},
		{"without a certificate", func(m *mint) {
			if m.dsse {
				m.written = func(s string) string { return strings.Replace(s, `"certificate":{`, `"publicKey":{`, 1) }
			} else {
				m.attached = func(s *Signature) { s.Certificate = "" }
			}
		}, "without the signer's certificate"},
		{"without an entry", func(m *mint) {
			m.unlogged = true
		}, "without an entry of a log"},
		{"cut short", func(m *mint) { m.written = func(s string) string { return s[:len(s)-1] } }, "EOF"},
		{"data behind", func(m *mint) { m.written = func(s string) string { return s + "{}" } }, "after top-level value"},
		{"member twice", func(m *mint) {
			first := `{"Payload":{},`
			if m.dsse {
				first = `{"mediaType":"x",`
			}
			m.written = func(s string) string { return strings.Replace(s, "{", first, 1) }
		}, "duplicate"},
		{"digest of another image", func(m *mint) {
			m.payload = strings.Replace(m.payload, digestOf("image").Hex, digestOf("evil").Hex, 1)
		}, "for digest " + digestOf("evil").String()},
	}
	for _, tt := range tests {
		forms(t, tt.name, func(t *testing.T, m *mint) {
			text := m.keyless(anyName)
			tt.spoil(m)
			wantVerdict(t, verdict(t, text, m.make()), tt.want)
		})
	}
}

// TestKeyAndLog: with a key and a log, both are needed.
func TestKeyAndLog(t *testing.T) {
	forms(t, "good", func(t *testing.T, m *mint) {
		m.keyed = true
		wantVerdict(t, verdict(t, m.byKey(anyName), m.make()), "")
	})
	forms(t, "by another key", func(t *testing.T, m *mint) {
		text := m.byKey(anyName)
		m.keyed, m.key = true, newEd25519(t)
		wantVerdict(t, verdict(t, text, m.make()), "not by an accepted key")
	})
	forms(t, "logged with a certificate of the key", func(t *testing.T, m *mint) {
		wantVerdict(t, verdict(t, m.byKey(anyName), m.make()), "another signer")
	})
	forms(t, "another log", func(t *testing.T, m *mint) {
		text := m.byKey(anyName)
		m.keyed, m.log = true, newECDSA(t, elliptic.P256(), crypto.SHA256)
		wantVerdict(t, verdict(t, text, m.make()), "a log that is not accepted")
	})
	t.Run("not logged", func(t *testing.T) {
		m := newMint(t, false)
		wantVerdict(t, verdict(t, m.byKey(anyName), m.key.sign(payloadFor("quay.io/team/app:v1", digestOf("image")))), "without an entry of a log")
	})
	t.Run("a log is not asked for", func(t *testing.T) {
		m := newMint(t, false)
		s := m.key.sign(payloadFor("quay.io/team/app:v1", digestOf("image")))
		s.RekorBundle, s.Certificate, s.Chain = "?", "?", "?"
		wantVerdict(t, verdict(t, signedPolicy("", m.key), s), "")
	})
}

// TestIntermediates: below the policy's root, from the signature's chain or the policy.
func TestIntermediates(t *testing.T) {
	m := newMint(t, false)
	m.payload = payloadFor("quay.io/team/app:v1", digestOf("image"))
	m.issuer = newCA(t, m.root)
	wantVerdict(t, verdict(t, m.keyless(""), m.make()), "")
	m.attached = func(s *Signature) { s.Chain = "" }
	wantVerdict(t, verdict(t, m.keyless(""), m.make()), "unknown authority")
	pki := func(subject string) string {
		return fmt.Sprintf(`{'default':[{'type':'sigstoreSigned','pki':{'caRootsData':'%s','caIntermediatesData':'%s'%s},'rekorPublicKeyData':'%s'}]}`,
			base64Of(pemOf(m.root.cert)), base64Of(pemOf(m.issuer.cert)), subject, m.log.base64())
	}
	m.leaf = func(c *x509.Certificate) { c.ExtraExtensions, c.DNSNames = nil, []string{"build.example.com"} }
	wantVerdict(t, verdict(t, pki(`,'subjectEmail':'`+mintEmail+`'`), m.make()), "")
	wantVerdict(t, verdict(t, pki(`,'subjectHostname':'build.example.com'`), m.make()), "")
	wantVerdict(t, verdict(t, pki(`,'subjectEmail':'`+mintEmail+`','subjectHostname':'build.example.com'`), m.make()), "")
	wantVerdict(t, verdict(t, pki(`,'subjectEmail':'x@example.com','subjectHostname':'build.example.com'`), m.make()), "want \"x@example.com\"")
	wantVerdict(t, verdict(t, pki(`,'subjectHostname':'evil.example.com'`), m.make()), "want \"evil.example.com\"")
	m.leaf = func(c *x509.Certificate) { c.ExtraExtensions, c.DNSNames = nil, []string{"*.example.com"} }
	wantVerdict(t, verdict(t, pki(`,'subjectHostname':'build.example.com'`), m.make()), "want \"build.example.com\"")
}

// TestBundle: what only a bundle can get wrong.
func TestBundle(t *testing.T) {
	hex := digestOf("image").Hex
	replace := func(old, new string) func(string) string {
		return func(s string) string { return strings.Replace(s, old, new, 1) }
	}
	tests := []struct {
		name    string
		written func(string) string // of the bundle
		payload func(string) string // of the statement
		want    string
	}{
		{name: "good"},
		{name: "named as the image", payload: replace(`{"digest"`, `{"name":"quay.io/team/app:v1","digest"`)},
		{name: "no predicate", payload: replace(`,"predicate":{}`, "")},

		{name: "an older bundle", written: replace("bundle.v0.3+json", "bundle.v0.2+json"), want: "bundle of type"},
		{name: "no type", written: replace(`"mediaType"`, `"MediaType"`), want: "MediaType"},
		{name: "a message signature beside", written: replace(`{"dsse`, `{"messageSignature":{},"dsse`), want: "message signature"},
		{name: "envelope twice", written: replace(`{"dsse`, `{"dsseEnvelope":{},"dsse`), want: "duplicate"},
		{name: "payload twice", written: replace(`{"payload"`, `{"payload":"","payload"`), want: "duplicate"},
		{name: "no envelope", written: replace(`"dsseEnvelope"`, `"verificationMaterial":{},"x"`), want: "bundle"},
		{name: "unknown member", written: replace(`{"dsse`, `{"extra":1,"dsse`), want: "extra"},
		{name: "a chain", written: replace(`"tlogEntries"`, `"x509CertificateChain":{},"tlogEntries"`), want: "x509CertificateChain"},
		{name: "payload of another type", written: replace(inTotoType, "text/plain"), want: "payload of type"},
		{name: "no signature", written: replace(`"signatures":[{`, `"signatures":[],"x":[{`), want: "\"x\""},
		{name: "two signatures", written: replace(`"signatures":[{`, `"signatures":[{},{`), want: "2 signatures"},
		{name: "log entries without end", written: replace(`"tlogEntries":[`, `"tlogEntries":[`+strings.Repeat("{},", maxLogEntries)), want: "9 log entries"},
		{name: "index in another spelling", written: replace(`"logIndex":"7"`, `"logIndex":"07"`), want: "logIndex"},
		{name: "index as a number", written: replace(`"logIndex":"7"`, `"logIndex":7`), want: "bundle"},
		{name: "too large", written: func(s string) string { return s + strings.Repeat(" ", maxBundle) }, want: "at most"},

		{name: "named as another image", payload: replace(`{"digest"`, `{"name":"quay.io/team/other:v1","digest"`), want: "for quay.io/team/other:v1"},
		{name: "another predicate", payload: replace(predicateType, "https://slsa.dev/provenance/v1"), want: "predicateType"},
		{name: "another statement", payload: replace("Statement/v1", "Statement/v0.1"), want: "_type"},
		{name: "no subject", payload: replace(`[{"digest":{"sha256":"`+hex+`"},"annotations":{}}]`, "[]"), want: "one subject"},
		{name: "two subjects", payload: replace(`"subject":[`, `"subject":[{"digest":{"sha256":"`+hex+`"}},`), want: "one subject"},
		{name: "two digests", payload: replace(`{"sha256"`, `{"sha512":"00","sha256"`), want: "one digest"},
		{name: "digest twice", payload: replace(`{"sha256"`, `{"sha256":"`+hex+`","sha256"`), want: "duplicate"},
		{name: "weak digest", payload: replace(`"sha256":"`+hex, `"sha1":"da39a3ee5e6b4b0d3255bfef95601890afd80709`), want: "digest"},
		{name: "digest in upper case", payload: replace(hex, strings.ToUpper(hex)), want: "digest"},
		{name: "unknown member of the statement", payload: replace(`{"_type"`, `{"extra":1,"_type"`), want: "extra"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMint(t, true)
			m.keyed, m.written, m.payload = true, tt.written, statementFor(digestOf("image").String())
			rule := anyName
			if tt.payload != nil {
				m.payload = tt.payload(m.payload)
			}
			if strings.HasPrefix(tt.name, "named") {
				rule = ""
			}
			wantVerdict(t, verdict(t, m.byKey(rule), m.make()), tt.want)
		})
	}
	t.Run("a name that nobody signed is none", func(t *testing.T) {
		m := newMint(t, true)
		m.keyed, m.payload = true, statementFor(digestOf("image").String())
		for _, rule := range []string{"", `,'signedIdentity':{'type':'matchRepository'}`, `,'signedIdentity':{'type':'matchExact'}`,
			`,'signedIdentity':{'type':'exactRepository','dockerRepository':'quay.io/team/app'}`} {
			err := verdict(t, m.byKey(rule), m.make())
			wantVerdict(t, err, "for no name")
			var d *Denial
			if !errors.As(err, &d) || !strings.Contains(d.Admit, matchDigestOnly) {
				t.Errorf("advice of %v", err)
			}
		}
	})
}

// FuzzParseBundle: no panic, and what is taken apart is within its limits.
func FuzzParseBundle(f *testing.F) {
	m := newMint(f, true)
	m.payload = statementFor(digestOf("image").String())
	f.Add(m.make().Bundle)
	m.keyed = true
	f.Add(m.make().Bundle)
	m.dsse, m.payload = false, payloadFor("quay.io/a/b", digestOf("image"))
	f.Add([]byte(m.make().RekorBundle))
	r := requirement{kind: typeSigstore, authority: &authority{}, rekor: []publicKey{{}}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, s := range []Signature{{Bundle: raw}, {RekorBundle: string(raw)}} {
			a, err := openSignature(s, &r)
			if err != nil {
				continue
			}
			if len(a.payload) > maxPayload || len(a.entries) > maxLogEntries {
				t.Fatalf("got %d bytes, %d entries", len(a.payload), len(a.entries))
			}
			if r.authored(a) == nil {
				t.Fatal("admitted without a root and a log")
			}
			for _, e := range a.entries {
				_ = e.about(a, blockKey, nil)
			}
			_, _ = a.says()
		}
	})
}

// FuzzParseStatement: no panic, and what is accepted names one digest.
func FuzzParseStatement(f *testing.F) {
	f.Add([]byte(statementFor(digestOf("image").String())))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if p, err := parseStatement(raw); err == nil && p.digest.Hex == "" {
			t.Fatalf("accepted %q as %+v", raw, p)
		}
	})
}
