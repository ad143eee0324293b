// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// TestParsePolicy: a policy is understood in full or not at all.
func TestParsePolicy(t *testing.T) {
	key := newECDSA(t, elliptic.P256(), crypto.SHA256)
	accept := `[{'type':'insecureAcceptAnything'}]`
	signed := func(members string) string {
		return `{'default':[{'type':'reject'}],'transports':{'docker':{'quay.io/a':[{'type':'sigstoreSigned'` + members + `}]}}}`
	}
	data := fmt.Sprintf(`,'keyData':'%s'`, key.base64())
	identity := func(object string) string { return signed(data + `,'signedIdentity':` + object) }
	scope := func(s string) string {
		return fmt.Sprintf(`{'default':%s,'transports':{'docker':{'%s':%s}}}`, accept, s, accept)
	}
	root := newMint(t, false)
	ca, leaf := base64Of(pemOf(root.root.cert)), base64Of(pemOf(root.certificate()))
	log := `,'rekorPublicKeyData':'` + key.base64() + `'`
	who := `'oidcIssuer':'https://idp.example','subjectEmail':'a@example.com'`
	fulcio := func(members string) string { return `,'fulcio':{` + members + `}` }
	tests := []struct {
		name, policy string
		want         string // of the error; "" is none
	}{
		{"default only", `{'default':` + accept + `}`, ""},
		{"the distributions' policy", `{'default':` + accept + `,'transports':{'docker-daemon':{'':` + accept + `}}}`, ""},
		{"reject", `{'default':[{'type':'reject'}]}`, ""},
		{"keyData in base64", signed(data), ""},
		{"keyData in PEM", signed(`,'keyData':'` + strings.ReplaceAll(key.pem(), "\n", `\n`) + `'`), ""},
		{"keyDatas", signed(fmt.Sprintf(`,'keyDatas':['%s','%s']`, key.base64(), newEd25519(t).base64())), ""},
		{"keyPath", signed(`,'keyPath':'/etc/key.pub'`), ""},
		{"keyPaths", signed(`,'keyPaths':['/etc/a.pub','kbs:///default/key/b']`), ""},

		{"empty", ``, "EOF"},
		{"not an object", `[]`, "policy"},
		{"no default", `{'transports':{}}`, "default: no requirements"},
		{"default null", `{'default':null}`, "default: no requirements"},
		{"default empty", `{'default':[]}`, "default: no requirements"},
		{"scope empty", `{'default':` + accept + `,'transports':{'docker':{'quay.io':[]}}}`, `transports.docker["quay.io"]: no requirements`},
		{"scope null", `{'default':` + accept + `,'transports':{'docker':{'quay.io':null}}}`, `transports.docker["quay.io"]: no requirements`},
		{"member in another case", `{'Default':` + accept + `}`, "Default"},
		{"requirement's type in another case", `{'default':[{'Type':'reject'}]}`, "no type"},
		{"member twice", `{'default':[{'type':'reject'}],'default':` + accept + `}`, "duplicate"},
		{"scope twice", `{'default':` + accept + `,'transports':{'docker':{'quay.io':[{'type':'reject'}],'quay.io':` + accept + `}}}`, "duplicate"},
		{"requirement's type twice", `{'default':[{'type':'reject','type':'insecureAcceptAnything'}]}`, "duplicate"},
		{"unknown member", `{'default':` + accept + `,'extra':1}`, "extra"},
		{"data behind the document", `{'default':` + accept + `}{}`, "after top-level value"},
		{"invalid UTF-8", "{'default':" + accept + ",'transports':{'docker':{'\xff':" + accept + "}}}", "UTF-8"},
		{"unknown type", `{'default':[{'type':'accept'}]}`, `requirement 0: unknown type "accept"`},
		{"type missing", `{'default':[{}]}`, "no type"},
		{"type null", `{'default':[{'type':null}]}`, "no type"},
		{"type in another case", `{'default':[{'type':'Reject'}]}`, `unknown type "Reject"`},
		{"requirement null", `{'default':[null]}`, "no type"},
		{"unknown member of accept", `{'default':[{'type':'insecureAcceptAnything','keyPath':'x'}]}`, "keyPath"},
		{"second requirement unknown", `{'default':[{'type':'reject'},{'type':'x'}]}`, "requirement 1"},
		{"unknown type in another transport", `{'default':` + accept + `,'transports':{'oci':{'':[{'type':'x'}]}}}`, `transports.oci[""]`},
		{"signedBy without keyType", `{'default':[{'type':'signedBy','keyPath':'/x'}]}`, `want GPGKeys`},
		{"signedBy of another keyType", `{'default':[{'type':'signedBy','keyType':'signedByGPGKeys','keyPath':'/x'}]}`, `want GPGKeys`},
		{"signedBy without a key", `{'default':[{'type':'signedBy','keyType':'GPGKeys'}]}`, `want one of keyPath`},
		{"signedBy with two", `{'default':[{'type':'signedBy','keyType':'GPGKeys','keyPath':'/x','keyData':'eA=='}]}`, `want one of keyPath`},
		{"signedBy with no keyring", `{'default':[{'type':'signedBy','keyType':'GPGKeys','keyData':'eA=='}]}`, `OpenPGP keyring`},
		{"signedBy with keyDatas", `{'default':[{'type':'signedBy','keyType':'GPGKeys','keyDatas':['eA==']}]}`, `keyDatas`},

		{"no key", signed(``), "got 0"},
		{"key null", signed(`,'keyData':null`), "got 0"},
		{"two keys", signed(data + `,'keyPath':'/x'`), "got 2 (keyPath, keyData)"},
		{"keyDatas empty", signed(`,'keyDatas':[]`), "0 keys"},
		{"too many keys", signed(`,'keyPaths':[` + strings.TrimSuffix(strings.Repeat(`'x',`, maxKeys+1), ",") + `]`), "17 keys"},
		{"keyPath empty", signed(`,'keyPath':''`), "empty path"},
		{"keyData empty", signed(`,'keyData':''`), "not PEM"},
		{"keyData no base64", signed(`,'keyData':'?'`), "neither PEM nor base64"},
		{"keyData of two keys", signed(`,'keyData':'` + base64.StdEncoding.EncodeToString([]byte(key.pem()+key.pem())) + `'`), "more than one PEM block"},
		{"key too small", signed(`,'keyData':'` + base64.StdEncoding.EncodeToString([]byte(smallRSA)) + `'`), "RSA key of 1024 bits"},
		{"private key", signed(`,'keyData':'-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n'`), "want PUBLIC KEY"},
		{"key that is none", signed(`,'keyData':'-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n'`), "parsing public key"},
		{"key with rekorPublicKeyPath", signed(data + `,'rekorPublicKeyPath':'/x'`), ""},
		{"key with rekorPublicKeyPaths", signed(data + `,'rekorPublicKeyPaths':['/x','/y']`), ""},
		{"key with rekorPublicKeyData", signed(data + log), ""},
		{"key with rekorPublicKeyDatas", signed(data + `,'rekorPublicKeyDatas':['` + key.base64() + `']`), ""},
		{"rekorPublicKeyPath empty", signed(data + `,'rekorPublicKeyPath':''`), "empty path"},
		{"rekorPublicKeyPaths empty", signed(data + `,'rekorPublicKeyPaths':[]`), "0 keys"},
		{"rekorPublicKeyData empty", signed(data + `,'rekorPublicKeyData':''`), "not PEM"},
		{"rekorPublicKeyDatas empty", signed(data + `,'rekorPublicKeyDatas':[]`), "0 keys"},
		{"two of rekorPublicKey", signed(data + log + `,'rekorPublicKeyPath':'/x'`), "got 2 (rekorPublicKeyPath, rekorPublicKeyData)"},

		{"fulcio with caData", signed(fulcio(`'caData':'`+ca+`',`+who) + log), ""},
		{"fulcio with caPath", signed(fulcio(`'caPath':'/ca',`+who) + log), ""},
		{"fulcio with a key", signed(data + fulcio(`'caPath':'/ca',`+who) + log), "got 2 (keyData, fulcio)"},
		{"fulcio without a log", signed(fulcio(`'caPath':'/ca',` + who)), "needs the time from a log"},
		{"fulcio without a CA", signed(fulcio(who) + log), "want one of caPath and caData, got 0"},
		{"fulcio with two CAs", signed(fulcio(`'caPath':'/ca','caData':'`+ca+`',`+who) + log), "got 2 (caPath, caData)"},
		{"fulcio without an issuer", signed(fulcio(`'caPath':'/ca','subjectEmail':'a@example.com'`) + log), "no oidcIssuer"},
		{"fulcio without a subject", signed(fulcio(`'caPath':'/ca','oidcIssuer':'https://idp.example'`) + log), "no subjectEmail"},
		{"fulcio with an unknown member", signed(fulcio(`'caPath':'/ca','subjectURI':'x',`+who) + log), "subjectURI"},
		{"fulcio in another case", signed(fulcio(`'CAPath':'/ca',`+who) + log), "CAPath"},
		{"fulcio empty", signed(`,'fulcio':{}` + log), "want one of caPath"},
		{"fulcio null", signed(`,'fulcio':null` + log), "want one of caPath"},
		{"fulcio and null key", signed(`,'keyData':null` + fulcio(`'caPath':'/ca',`+who) + log), ""},
		{"fulcio with a key as CA", signed(fulcio(`'caData':'`+key.base64()+`',`+who) + log), "want CERTIFICATE"},
		{"fulcio with a signer's certificate as CA", signed(fulcio(`'caData':'`+leaf+`',`+who) + log), "not one of a CA"},
		{"fulcio with text beside the CA", signed(fulcio(`'caData':'`+base64Of("x\n"+pemOf(root.root.cert))+`',`+who) + log), "not PEM"},
		{"pki", signed(`,'pki':{'caRootsData':'` + ca + `','caIntermediatesPath':'/x','subjectHostname':'a.example.com'}` + log), ""},
		{"pki without a log", signed(`,'pki':{'caRootsData':'` + ca + `','subjectEmail':'a@example.com'}`), "needs the time from a log"},
		{"pki without a subject", signed(`,'pki':{'caRootsData':'` + ca + `'}` + log), "neither subjectEmail nor subjectHostname"},
		{"pki with an empty subject", signed(`,'pki':{'caRootsData':'` + ca + `','subjectEmail':''}` + log), "subjectEmail is empty"},
		{"pki without roots", signed(`,'pki':{'caIntermediatesData':'` + ca + `','subjectEmail':'a@example.com'}` + log), "want one of caRootsPath"},
		{"pki with two intermediates", signed(`,'pki':{'caRootsPath':'/r','caIntermediatesPath':'/i','caIntermediatesData':'` + ca + `','subjectEmail':'a@example.com'}` + log), "got 2 (caIntermediatesPath"},
		{"pki and fulcio", signed(`,'pki':{}` + fulcio(who) + log), "got 2 (fulcio, pki)"},
		{"pki null", signed(`,'pki':null` + log), "want one of caRootsPath"},
		{"identity matchDigestOnly", identity(`{'type':'matchDigestOnly'}`), ""},
		{"unknown member of sigstoreSigned", signed(data + `,'rekor':{}`), "rekor"},

		{"identity matchExact", identity(`{'type':'matchExact'}`), ""},
		{"identity matchRepoDigestOrExact", identity(`{'type':'matchRepoDigestOrExact'}`), ""},
		{"identity matchRepository", identity(`{'type':'matchRepository'}`), ""},
		{"identity exactReference", identity(`{'type':'exactReference','dockerReference':'quay.io/a/b:v1'}`), ""},
		{"identity exactRepository", identity(`{'type':'exactRepository','dockerRepository':'quay.io/a/b'}`), ""},
		{"identity remapIdentity", identity(`{'type':'remapIdentity','prefix':'mirror:5000/vendor','signedPrefix':'vendor.example'}`), ""},
		{"identity null", identity(`null`), "no type"},
		{"identity unknown", identity(`{'type':'matchAny'}`), `unknown type "matchAny"`},
		{"identity with an unknown member", identity(`{'type':'matchRepository','dockerRepository':'x'}`), "dockerRepository"},
		{"exactReference without a tag", identity(`{'type':'exactReference','dockerReference':'quay.io/a/b'}`), "neither a tag nor a digest"},
		{"exactReference without a name", identity(`{'type':'exactReference'}`), "exactReference"},
		{"exactReference with tag and digest", identity(`{'type':'exactReference','dockerReference':'a:b@` + digestOf("x").String() + `'}`), "a tag and a digest"},
		{"exactRepository with a tag", identity(`{'type':'exactRepository','dockerRepository':'quay.io/a/b:v1'}`), "a tag or a digest"},
		{"remapIdentity without a prefix", identity(`{'type':'remapIdentity','signedPrefix':'vendor.example'}`), "prefix is empty"},
		{"remapIdentity with a short name", identity(`{'type':'remapIdentity','prefix':'vendor/app','signedPrefix':'quay.io'}`), "no host"},
		{"remapIdentity with a tag", identity(`{'type':'remapIdentity','prefix':'quay.io/a:v1','signedPrefix':'quay.io'}`), "want a host"},
		{"remapIdentity with a wildcard", identity(`{'type':'remapIdentity','prefix':'*.quay.io','signedPrefix':'quay.io'}`), "want a host"},

		{"scope host", scope("quay.io"), ""},
		{"scope host and port", scope("registry.example:5000"), ""},
		{"scope localhost", scope("localhost:5000/a"), ""},
		{"scope namespace", scope("docker.io/library"), ""},
		{"scope repository", scope("docker.io/library/busybox"), ""},
		{"scope tag", scope("docker.io/library/busybox:1.36"), ""},
		{"scope digest", scope("quay.io/a/b@" + digestOf("x").String()), ""},
		{"scope of all", scope(""), ""},
		{"scope wildcard", scope("*.example.com"), ""},
		{"scope with a scheme", scope("https://quay.io/a"), "scope"},
		{"scope in upper case", scope("quay.io/Team/app"), "scope"},
		{"scope's host in upper case", scope("Quay.io/team"), "scope"},
		{"scope's wildcard in upper case", scope("*.Example.com"), "scope"},
		{"scope with a slash at its end", scope("quay.io/team/"), "scope"},
		{"scope of index.docker.io", scope("index.docker.io/library"), "docker.io"},
		{"scope by its short name", scope("busybox:latest"), "scope"},
		{"scope that is short for another", scope("docker.io/busybox:latest"), `full name is "docker.io/library/busybox:latest"`},
		{"wildcard in the middle", scope("registry.*.com"), "wildcard"},
		{"wildcard with a path", scope("*.example.com/a"), "scope"},
		{"wildcard alone", scope("*"), "wildcard"},
		{"scope with a short digest", scope("quay.io/a/b@sha256:00"), "scope"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePolicy([]byte(strings.ReplaceAll(tt.policy, "'", `"`)))
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || p != nil {
				t.Fatalf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := ParsePolicy(make([]byte, maxPolicy+1)); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("policy over the limit: %v", err)
	}
}

// smallRSA has 1024 bits.
const smallRSA = `-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDdlatRjRjogo3WojgGHFHYLugd
UWAY9iR3fy4arWNA1KoS8kVw33cJibXr8bvwUAUparCwlvdbH6dvEOfou0/gCFQs
HUfQrSDv+MuSUMAe8jzKE4qW+jK+xQU9a03GUnKHkkle+Q0pX/g6jXZ7r1/xAK5D
o2kQ+X5xK9cipRgEKwIDAQAB
-----END PUBLIC KEY-----
`

func TestHash(t *testing.T) {
	raw := []byte(` {"default":[{"type":"reject"}]} `)
	p, err := ParsePolicy(raw)
	if err != nil {
		t.Fatal(err)
	}
	if p.Hash() != sha256.Sum256(raw) {
		t.Errorf("got %x, want the hash of the very bytes", p.Hash())
	}
}

func TestLoadKeys(t *testing.T) {
	a, b := newECDSA(t, elliptic.P256(), crypto.SHA256), newEd25519(t)
	p := policy(t, `{'default':[{'type':'sigstoreSigned','keyPath':'/a'}],
		'transports':{'docker':{'quay.io':[{'type':'sigstoreSigned','keyPaths':['kbs:///default/key/b','/a']}]}}}`)
	digest := digestOf("image")
	check := func(reference string, by signer) error {
		src := holding(digest, by.sign(payloadFor(reference, digest)))
		return p.Check(context.Background(), subject(t, reference, digest), src)
	}
	if err := check("ghcr.io/x:v1", a); err == nil || !strings.Contains(err.Error(), `key "/a", which was not loaded`) {
		t.Errorf("before LoadKeys: %v", err)
	}
	if err := p.LoadKeys(context.Background(), keyFiles{"/a": a.pem()}); err == nil || !strings.Contains(err.Error(), `key "kbs:///default/key/b" of transports.docker["quay.io"]`) {
		t.Errorf("missing key: %v", err)
	}
	if err := check("ghcr.io/x:v1", a); err == nil {
		t.Error("keys are used although LoadKeys failed")
	}
	if err := p.LoadKeys(context.Background(), keyFiles{"/a": "no key", "kbs:///default/key/b": b.pem()}); err == nil || !strings.Contains(err.Error(), "not PEM") {
		t.Errorf("bad key: %v", err)
	}
	if err := p.LoadKeys(context.Background(), keyFiles{"/a": a.pem(), "kbs:///default/key/b": b.pem()}); err != nil {
		t.Fatal(err)
	}
	if err := check("ghcr.io/x:v1", a); err != nil {
		t.Error(err)
	}
	if err := check("ghcr.io/x:v1", b); err == nil {
		t.Error("a key of another scope is accepted")
	}
	for _, by := range []signer{a, b} {
		if err := check("quay.io/x/y:v1", by); err != nil {
			t.Error(err)
		}
	}
}

// TestScopesOf pins the order of lookup.
func TestScopesOf(t *testing.T) {
	d := digestOf("x").String()
	tests := []struct {
		reference string
		want      []string
	}{
		{"busybox", []string{"docker.io/library/busybox:latest", "docker.io/library/busybox", "docker.io/library", "docker.io", "*.io", ""}},
		{"index.docker.io/team/app:v1", []string{"docker.io/team/app:v1", "docker.io/team/app", "docker.io/team", "docker.io", "*.io", ""}},
		{"quay.io/a/b/c@" + d, []string{"quay.io/a/b/c@" + d, "quay.io/a/b/c", "quay.io/a/b", "quay.io/a", "quay.io", "*.io", ""}},
		{"quay.io/a/b:v1@" + d, []string{"quay.io/a/b@" + d, "quay.io/a/b", "quay.io/a", "quay.io", "*.io", ""}},
		{"r.sub.example.com:5000/a:v1", []string{"r.sub.example.com:5000/a:v1", "r.sub.example.com:5000/a", "r.sub.example.com:5000",
			"*.sub.example.com", "*.example.com", "*.com", ""}},
		{"localhost:5000/a:v1", []string{"localhost:5000/a:v1", "localhost:5000/a", "localhost:5000", ""}},
		{"[::1]:5000/a:v1", []string{"[::1]:5000/a:v1", "[::1]:5000/a", "[::1]:5000", ""}},
		{"ghcr.io./a/b:v1", []string{"ghcr.io/a/b:v1", "ghcr.io/a/b", "ghcr.io/a", "ghcr.io", "*.io", ""}},
		{"r.example.com.:5000/a:v1", []string{"r.example.com:5000/a:v1", "r.example.com:5000/a", "r.example.com:5000", "*.example.com", "*.com", ""}},
		{"GHCR.io/a/b:v1", []string{"ghcr.io/a/b:v1", "ghcr.io/a/b", "ghcr.io/a", "ghcr.io", "*.io", ""}},
	}
	for _, tt := range tests {
		got := scopesOf(fromName(subject(t, tt.reference).Reference))
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s\n got %q\nwant %q", tt.reference, got, tt.want)
		}
		for _, scope := range got {
			if err := checkScope(scope); err != nil {
				t.Errorf("scope %q of %s is refused: %v", scope, tt.reference, err)
			}
		}
	}
}

// TestMatch: the best match alone counts.
func TestMatch(t *testing.T) {
	d := digestOf("x").String()
	accept := `:[{'type':'insecureAcceptAnything'}]`
	p := policy(t, `{'default':[{'type':'reject'}],'transports':{'docker':{
		'quay.io/team/app:v1'`+accept+`,'quay.io/team/app@`+d+`'`+accept+`,'quay.io/team/app'`+accept+`,'quay.io/team'`+accept+`,
		'quay.io'`+accept+`,'*.example.com'`+accept+`,'sub.example.com:5000'`+accept+`,'docker.io/library'`+accept+`}}}`)
	tests := map[string]string{
		"quay.io/team/app:v1":         `transports.docker["quay.io/team/app:v1"]`,
		"quay.io/team/app:v2":         `transports.docker["quay.io/team/app"]`,
		"quay.io/team/app@" + d:       `transports.docker["quay.io/team/app@` + d + `"]`,
		"quay.io/team/app:v1@" + d:    `transports.docker["quay.io/team/app@` + d + `"]`,
		"quay.io/team/other:v1":       `transports.docker["quay.io/team"]`,
		"quay.io/team2/app:v1":        `transports.docker["quay.io"]`,
		"quay.io/teamapp:v1":          `transports.docker["quay.io"]`,
		"evil-quay.io/team/app:v1":    "default",
		"evil.io/quay.io/team/app:v1": "default",
		"quay.io.evil.io/team/app:v1": "default",
		"quay.io:443/team/app:v1":     "default",
		"a.example.com/x:v1":          `transports.docker["*.example.com"]`,
		"a.b.example.com:80/x:v1":     `transports.docker["*.example.com"]`,
		"example.com/x:v1":            "default",
		"evilexample.com/x:v1":        "default",
		"sub.example.com:5000/x:v1":   `transports.docker["sub.example.com:5000"]`,
		"sub.example.com:5001/x:v1":   `transports.docker["*.example.com"]`,
		"busybox":                     `transports.docker["docker.io/library"]`,
		"index.docker.io/busybox:1":   `transports.docker["docker.io/library"]`,
		"docker.io/team/busybox:1":    "default",
	}
	for reference, want := range tests {
		if got, _ := p.match(fromName(subject(t, reference).Reference)); got != want {
			t.Errorf("%s: got %s, want %s", reference, got, want)
		}
	}
	all := policy(t, `{'default':[{'type':'reject'}],'transports':{'docker':{''`+accept+`}}}`)
	if got, _ := all.match(fromName(subject(t, "busybox").Reference)); got != `transports.docker[""]` {
		t.Errorf("the transport's own default: got %s", got)
	}
}
