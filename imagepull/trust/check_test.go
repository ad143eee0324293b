// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// signedPolicy admits what the keys have signed.
func signedPolicy(identity string, keys ...signer) string {
	list := make([]string, 0, len(keys))
	for _, k := range keys {
		list = append(list, "'"+k.base64()+"'")
	}
	if identity != "" {
		identity = `,'signedIdentity':` + identity
	}
	return `{'default':[{'type':'sigstoreSigned','keyDatas':[` + strings.Join(list, ",") + `]` + identity + `}]}`
}

// TestKeys: each kind of key verifies what it signed, and nothing else does.
func TestKeys(t *testing.T) {
	digest, reference := digestOf("image"), "quay.io/team/app:v1"
	keys := map[string]signer{
		"RSA 2048":           newRSA(t, 2048),
		"RSA 3072":           newRSA(t, 3072),
		"P-256":              newECDSA(t, elliptic.P256(), crypto.SHA256),
		"P-384 with SHA-256": newECDSA(t, elliptic.P384(), crypto.SHA256),
		"P-384 with its own": newECDSA(t, elliptic.P384(), crypto.SHA384),
		"P-521 with SHA-256": newECDSA(t, elliptic.P521(), crypto.SHA256),
		"P-521 with its own": newECDSA(t, elliptic.P521(), crypto.SHA512),
		"Ed25519":            newEd25519(t),
	}
	stranger := newECDSA(t, elliptic.P256(), crypto.SHA256)
	for what, key := range keys {
		t.Run(what, func(t *testing.T) {
			p := policy(t, signedPolicy("", key))
			good := key.sign(payloadFor(reference, digest))
			if err := p.Check(context.Background(), subject(t, reference, digest), holding(digest, good)); err != nil {
				t.Error(err)
			}
			foreign := stranger.sign(payloadFor(reference, digest))
			flipped := Signature{Payload: append([]byte(" "), good.Payload...), Base64Signature: good.Base64Signature}
			for what, s := range map[string]Signature{"another key": foreign, "another payload": flipped} {
				err := p.Check(context.Background(), subject(t, reference, digest), holding(digest, s))
				if !errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), "not by an accepted key") {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	t.Run("RSA-PSS is not accepted", func(t *testing.T) {
		pss := newRSA(t, 2048)
		pss.opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		err := policy(t, signedPolicy("", pss)).Check(context.Background(), subject(t, reference, digest),
			holding(digest, pss.sign(payloadFor(reference, digest))))
		if !errors.Is(err, ErrDenied) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("any of several keys", func(t *testing.T) {
		a, b := keys["P-256"], keys["Ed25519"]
		p := policy(t, signedPolicy("", a, b))
		for _, key := range []signer{a, b} {
			if err := p.Check(context.Background(), subject(t, reference, digest), holding(digest, key.sign(payloadFor(reference, digest)))); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestSignatures has one case for each way in which signatures can be right or wrong.
func TestSignatures(t *testing.T) {
	key, stranger := newECDSA(t, elliptic.P256(), crypto.SHA256), newECDSA(t, elliptic.P256(), crypto.SHA256)
	const reference = "quay.io/team/app:v1"
	index, platform, other := digestOf("index"), digestOf("platform"), digestOf("other")
	good := key.sign(payloadFor(reference, platform))
	onIndex := key.sign(payloadFor(reference, index))
	signed := func(payload string) Signature { return key.sign(payload) }
	text := payloadFor(reference, platform)
	swap := func(old, new string) Signature {
		changed := strings.Replace(text, old, new, 1)
		if changed == text {
			t.Fatalf("%q is not in the payload", old)
		}
		return signed(changed)
	}
	unrelated := []Signature{
		stranger.sign(payloadFor(reference, platform)),
		signed(payloadFor(reference, other)),
		signed(payloadFor("quay.io/team/other:v1", platform)),
		{Payload: []byte("{}"), Base64Signature: "?"},
		{Payload: []byte(text), Base64Signature: ""},
		{Payload: make([]byte, maxPayload+1), Base64Signature: good.Base64Signature},
		{Payload: good.Payload, Base64Signature: strings.Repeat("A", maxSignature+4)},
		swap(`"optional"`, `"other"`),
	}
	wrapped := good
	wrapped.Base64Signature = good.Base64Signature[:20] + "\r\n" + good.Base64Signature[20:]
	down := errors.New("registry is down")
	tests := []struct {
		name string
		src  *registry
		want string // of the refusal; "" admits
	}{
		{"one good signature", holding(platform, good), ""},
		{"a signature of the index", holding(index, onIndex), ""},
		{"the platform's signature beside the index", holding(index, good), ""},
		{"line ends in the base64", holding(platform, wrapped), ""},
		{"one good among unrelated ones", holding(platform, append(unrelated, good)...), ""},
		{"annotations by the signer", holding(platform, swap("null", `{"creator":"x","timestamp":1,"nested":{"a":[1]}}`)), ""},
		{"no optional member", holding(platform, swap(`,"optional":null`, "")), ""},
		{"good although the index's could not be fetched", &registry{signatures: map[v1.Hash][]Signature{platform: {good}}, fails: map[v1.Hash]error{index: down}}, ""},

		{"no signature", holding(platform), "found none"},
		{"only unrelated ones", holding(platform, unrelated...), "4 more"},
		{"by a stranger", holding(platform, unrelated[0]), "not by an accepted key"},
		{"for another digest", holding(platform, unrelated[1]), "for digest " + other.String()},
		{"for another name", holding(platform, unrelated[2]), "for quay.io/team/other:v1"},
		{"no base64", holding(platform, unrelated[3]), "not base64"},
		{"empty", holding(platform, unrelated[4]), "not by an accepted key"},
		{"payload over the limit", holding(platform, unrelated[5]), "at most"},
		{"signature over the limit", holding(platform, unrelated[6]), "at most"},
		{"for another tag", holding(platform, signed(payloadFor("quay.io/team/app:v2", platform))), "for quay.io/team/app:v2"},
		{"for the repository alone", holding(platform, signed(payloadFor("quay.io/team/app", platform))), "for quay.io/team/app"},
		{"for another purpose", holding(platform, swap(payloadType, "atomic container signature")), "critical.type"},
		{"unknown member", holding(platform, swap(`"optional"`, `"other"`)), "other"},
		{"unknown critical member", holding(platform, swap(`"type"`, `"extra":1,"type"`)), "extra"},
		{"unknown image member", holding(platform, swap(`"docker-manifest-digest"`, `"extra":1,"docker-manifest-digest"`)), "extra"},
		{"digest twice", holding(platform, swap(`{"docker-manifest-digest"`, `{"docker-manifest-digest":"`+platform.String()+`","docker-manifest-digest"`)), "duplicate"},
		{"digest in another case", holding(platform, swap(`"docker-manifest-digest"`, `"Docker-Manifest-Digest"`)), "Docker-Manifest-Digest"},
		{"critical twice", holding(platform, swap(`"optional":null`, `"critical":{}`)), "duplicate"},
		{"critical null", holding(platform, signed(`{"critical":null,"optional":null}`)), "missing"},
		{"no identity", holding(platform, swap(`"identity":{"docker-reference":"quay.io/team/app:v1"},`, "")), "missing"},
		{"identity without a name", holding(platform, swap(`"docker-reference":"quay.io/team/app:v1"`, "")), "missing"},
		{"name that is none", holding(platform, swap("quay.io/team/app:v1", "quay.io/Team/app:v1")), "docker-reference"},
		{"name with tag and digest", holding(platform, swap("quay.io/team/app:v1", "quay.io/team/app:v1@"+platform.String())), "a tag and a digest"},
		{"digest that is none", holding(platform, swap(platform.String(), "sha256:00")), "docker-manifest-digest"},
		{"digest in upper case", holding(platform, swap(platform.Hex, strings.ToUpper(platform.Hex))), "docker-manifest-digest"},
		{"data behind the payload", holding(platform, signed(text+"{}")), "malformed"},
		{"good one behind the limit", holding(platform, append(make([]Signature, maxSignatures), good)...), "more"},
	}
	p := policy(t, signedPolicy("", key))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := p.Check(context.Background(), subject(t, reference, index, platform), tt.src)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var denial *Denial
			if !errors.As(err, &denial) || !errors.Is(err, ErrDenied) || !strings.Contains(denial.Found+denial.Wanted+err.Error(), tt.want) {
				t.Fatalf("got %v, want a refusal with %q", err, tt.want)
			}
		})
	}
}

// TestSourceErrors: not knowing is no refusal, and no admission.
func TestSourceErrors(t *testing.T) {
	key := newECDSA(t, elliptic.P256(), crypto.SHA256)
	digest, down := digestOf("image"), errors.New("registry is down")
	p := policy(t, signedPolicy("", key))
	s := subject(t, "quay.io/team/app:v1", digest)
	src := &registry{signatures: map[v1.Hash][]Signature{digest: {{}}}, fails: map[v1.Hash]error{digest: down}}
	if err := p.Check(context.Background(), s, src); !errors.Is(err, down) || errors.Is(err, ErrDenied) {
		t.Errorf("failing source: %v", err)
	}
	if err := p.Check(context.Background(), s, nil); err == nil || errors.Is(err, ErrDenied) {
		t.Errorf("no source: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Check(ctx, s, holding(digest, Signature{})); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, s := range []Subject{{}, {Reference: s.Reference}, {Digests: s.Digests}} {
		if err := policy(t, `{'default':[{'type':'insecureAcceptAnything'}]}`).Check(context.Background(), s, src); err == nil {
			t.Errorf("subject %+v is admitted", s)
		}
	}
}

// TestRequirements: all of them must be met.
func TestRequirements(t *testing.T) {
	a, b := newECDSA(t, elliptic.P256(), crypto.SHA256), newEd25519(t)
	digest, reference := digestOf("image"), "quay.io/team/app:v1"
	by := func(s signer) Signature { return s.sign(payloadFor(reference, digest)) }
	one := func(s signer) string { return `{'type':'sigstoreSigned','keyData':'` + s.base64() + `'}` }
	accept, reject := `{'type':'insecureAcceptAnything'}`, `{'type':'reject'}`
	tests := []struct {
		name, list string
		signatures []Signature
		want       string
		asked      int
	}{
		{"accept", accept, nil, "", 0},
		{"reject", reject, []Signature{by(a)}, "reject[0]", 0},
		{"accept and reject", accept + "," + reject, nil, "reject[1]", 0},
		{"accept and signed, unsigned", accept + "," + one(a), nil, "sigstoreSigned[1]", 1},
		{"signed by both", one(a) + "," + one(b), []Signature{by(a), by(b)}, "", 1},
		{"signed by one of both", one(a) + "," + one(b), []Signature{by(a), by(a)}, "sigstoreSigned[1]", 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := holding(digest, tt.signatures...)
			err := policy(t, `{'default':[`+tt.list+`]}`).Check(context.Background(), subject(t, reference, digest), src)
			var denial *Denial
			if errors.As(err, &denial); (tt.want == "") != (err == nil) || err != nil && (denial == nil || denial.Requirement != tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if src.asked != tt.asked {
				t.Errorf("source was asked %d times, want %d", src.asked, tt.asked)
			}
		})
	}
}

// TestIdentities: what a signature has to claim, for each rule.
func TestIdentities(t *testing.T) {
	d := digestOf("image").String()
	e := digestOf("other").String()
	tests := []struct {
		rule, requested, signed string
		want                    bool
	}{
		{`{'type':'matchExact'}`, "quay.io/a/b:v1", "quay.io/a/b:v1", true},
		{`{'type':'matchExact'}`, "quay.io/a/b:v1", "quay.io/a/b:v2", false},
		{`{'type':'matchExact'}`, "quay.io/a/b:v1", "quay.io/a/b", false},
		{`{'type':'matchExact'}`, "quay.io/a/b@" + d, "quay.io/a/b:v1", false},
		{`{'type':'matchExact'}`, "quay.io/a/b@" + d, "quay.io/a/b@" + d, true},
		{`{'type':'matchExact'}`, "busybox", "docker.io/library/busybox:latest", true},
		{`{'type':'matchExact'}`, "busybox", "index.docker.io/library/busybox:latest", true},
		{`{'type':'matchExact'}`, "busybox", "busybox:latest", true},
		{``, "quay.io/a/b:v1", "quay.io/a/b:v1", true},
		{``, "quay.io/a/b:v1", "quay.io/a/b:v2", false},
		{``, "quay.io/a/b:v1", "quay.io/a/b", false},
		{``, "quay.io/a/b@" + d, "quay.io/a/b:v2", true},
		{``, "quay.io/a/b@" + d, "quay.io/a/b@" + e, true},
		{``, "quay.io/a/b@" + d, "quay.io/a/b", false},
		{``, "quay.io/a/b@" + d, "quay.io/a/c:v1", false},
		{``, "quay.io/a/b:v1@" + d, "quay.io/a/b:v2", true},
		{`{'type':'matchRepository'}`, "quay.io/a/b:v1", "quay.io/a/b", true},
		{`{'type':'matchRepository'}`, "quay.io/a/b:v1", "quay.io/a/b:v2", true},
		{`{'type':'matchRepository'}`, "busybox:v1", "index.docker.io/library/busybox", true},
		{`{'type':'matchRepository'}`, "quay.io/a/b:v1", "quay.io/a", false},
		{`{'type':'matchRepository'}`, "quay.io/a/b:v1", "quay.io/a/b/c", false},
		{`{'type':'exactReference','dockerReference':'busybox:v1'}`, "mirror:5000/x:v9", "docker.io/library/busybox:v1", true},
		{`{'type':'exactReference','dockerReference':'busybox:v1'}`, "mirror:5000/x:v9", "docker.io/library/busybox:v2", false},
		{`{'type':'exactReference','dockerReference':'busybox:v1'}`, "mirror:5000/x:v9", "docker.io/library/busybox", false},
		{`{'type':'exactRepository','dockerRepository':'vendor.example/p/r'}`, "mirror:5000/x:v9", "vendor.example/p/r:v1", true},
		{`{'type':'exactRepository','dockerRepository':'vendor.example/p/r'}`, "mirror:5000/x:v9", "vendor.example/p/r", true},
		{`{'type':'exactRepository','dockerRepository':'vendor.example/p/r'}`, "mirror:5000/x:v9", "mirror:5000/x:v9", false},
		{`{'type':'remapIdentity','prefix':'mirror:5000/vendor','signedPrefix':'vendor.example'}`, "mirror:5000/vendor/p/r:v1", "vendor.example/p/r:v1", true},
		{`{'type':'remapIdentity','prefix':'mirror:5000/vendor','signedPrefix':'vendor.example'}`, "mirror:5000/vendor/p/r:v1", "vendor.example/p/r:v2", false},
		{`{'type':'remapIdentity','prefix':'mirror:5000/vendor','signedPrefix':'vendor.example'}`, "mirror:5000/vendor/p/r@" + d, "vendor.example/p/r:v2", true},
		{`{'type':'remapIdentity','prefix':'mirror:5000/vendor','signedPrefix':'vendor.example'}`, "mirror:5000/vendor2/p:v1", "vendor.example2/p:v1", false},
		{`{'type':'remapIdentity','prefix':'mirror:5000/vendor','signedPrefix':'vendor.example'}`, "mirror:5000/vendor2/p:v1", "mirror:5000/vendor2/p:v1", true},
		{`{'type':'remapIdentity','prefix':'mirror:5000','signedPrefix':'quay.io/org'}`, "mirror:5000/r:v1", "quay.io/org/r:v1", true},
		{`{'type':'remapIdentity','prefix':'docker.io/library/busybox','signedPrefix':'quay.io/b'}`, "busybox:v1", "quay.io/b:v1", true},
		{`{'type':'remapIdentity','prefix':'quay.io/b','signedPrefix':'docker.io/library/busybox'}`, "quay.io/b:v1", "busybox:v1", true},
	}
	key := newEd25519(t)
	digest := digestOf("image")
	for _, tt := range tests {
		src := holding(digest, key.sign(payloadFor(tt.signed, digest)))
		err := policy(t, signedPolicy(tt.rule, key)).Check(context.Background(), subject(t, tt.requested, digest), src)
		if (err == nil) != tt.want || err != nil && !errors.Is(err, ErrDenied) {
			t.Errorf("rule %s, requested %s, signed %s: got %v, want %v", tt.rule, tt.requested, tt.signed, err, tt.want)
		}
	}
}

// TestDenial: a refusal says what refused, and following its advice admits the image.
func TestDenial(t *testing.T) {
	key, digest := newEd25519(t), digestOf("image")
	denied := func(p string, reference string, signatures ...Signature) *Denial {
		t.Helper()
		var d *Denial
		err := policy(t, p).Check(context.Background(), subject(t, reference, digest), holding(digest, signatures...))
		if !errors.As(err, &d) {
			t.Fatalf("got %v, want a denial", err)
		}
		return d
	}
	d := denied(`{'default':[{'type':'insecureAcceptAnything'}],'transports':{'docker':{'quay.io/team':[{'type':'reject'}]}}}`, "quay.io/team/app:v1")
	if d.Reference != "quay.io/team/app:v1" || d.Scope != `transports.docker["quay.io/team"]` || d.Requirement != "reject[0]" || d.Digests[0] != digest {
		t.Errorf("got %+v", d)
	}
	if want := `image denied by policy: quay.io/team/app:v1: transports.docker["quay.io/team"] reject[0] wants no image here, found this one`; d.Error() != want {
		t.Errorf("got %q, want %q", d.Error(), want)
	}
	scope := "quay.io/team/app@" + digest.String()
	advice := fmt.Sprintf("%q: [{\"type\":\"insecureAcceptAnything\"}]", scope)
	if !strings.Contains(d.Admit, advice) || !strings.Contains(d.Admit, "request it as "+scope) {
		t.Errorf("advice is %q", d.Admit)
	}
	followed := `{"default":[{"type":"reject"}],"transports":{"docker":{` + advice + `}}}`
	p, err := ParsePolicy([]byte(followed))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Check(context.Background(), subject(t, scope, digest), nil); err != nil {
		t.Errorf("following the advice: %v", err)
	}
	d = denied(signedPolicy("", key), "quay.io/team/app:v1", key.sign(payloadFor("quay.io/team/app", digest)))
	if !strings.Contains(d.Admit, `"signedIdentity": {"type":"matchRepository"}`) || !strings.Contains(d.Admit, "SHA256:") {
		t.Errorf("advice is %q", d.Admit)
	}
	if err := policy(t, signedPolicy(`{'type':'matchRepository'}`, key)).Check(context.Background(), subject(t, "quay.io/team/app:v1", digest),
		holding(digest, key.sign(payloadFor("quay.io/team/app", digest)))); err != nil {
		t.Errorf("following the advice: %v", err)
	}
}

// TestCosign verifies what cosign wrote (testdata/regen.sh).
func TestCosign(t *testing.T) {
	read := func(file string) string {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(b))
	}
	payload, err := os.ReadFile("testdata/cosign.json")
	if err != nil {
		t.Fatal(err)
	}
	digest, err := v1.NewHash(read("digest"))
	if err != nil {
		t.Fatal(err)
	}
	src := holding(digest, Signature{Payload: payload, Base64Signature: read("cosign.sig")})
	const repo = "127.0.0.1:5871/team/app"
	p := policy(t, `{'default':[{'type':'reject'}],'transports':{'docker':{'127.0.0.1:5871':[
		{'type':'sigstoreSigned','keyPath':'cosign.pub','signedIdentity':{'type':'matchRepository'}}]}}}`)
	if err := p.LoadKeys(context.Background(), keyFiles{"cosign.pub": read("cosign.pub")}); err != nil {
		t.Fatal(err)
	}
	for _, reference := range []string{repo + ":v1", repo + "@" + digest.String()} {
		if err := p.Check(context.Background(), subject(t, reference, digest), src); err != nil {
			t.Error(err)
		}
	}
	for i := range payload {
		bad := append([]byte(nil), payload...)
		bad[i] ^= 1
		err := p.Check(context.Background(), subject(t, repo+":v1", digest), holding(digest, Signature{Payload: bad, Base64Signature: read("cosign.sig")}))
		if !errors.Is(err, ErrDenied) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

// TestOpenSSL verifies what openssl signs, with each kind of key.
func TestOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("needs openssl: %v", err)
	}
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %v: %v\n%s", args, err, out)
		}
	}
	digest, reference := digestOf("image"), "quay.io/team/app:v1"
	payload := payloadFor(reference, digest)
	if err := os.WriteFile(filepath.Join(dir, "payload"), []byte(payload), 0o600); err != nil {
		t.Fatal(err)
	}
	dgst := []string{"dgst", "-sha256", "-sign", "key", "-out", "sig", "payload"}
	tests := []struct {
		name     string
		generate []string
		sign     []string
	}{
		{"RSA", []string{"genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key"}, dgst},
		{"P-256", []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "key"}, dgst},
		{"P-384", []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-out", "key"}, dgst},
		{"P-521", []string{"genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521", "-out", "key"}, dgst},
		{"Ed25519", []string{"genpkey", "-algorithm", "ED25519", "-out", "key"},
			[]string{"pkeyutl", "-sign", "-inkey", "key", "-rawin", "-in", "payload", "-out", "sig"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			run(tt.generate...)
			run("pkey", "-in", "key", "-pubout", "-out", "pub")
			run(tt.sign...)
			pub, err := os.ReadFile(filepath.Join(dir, "pub"))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := os.ReadFile(filepath.Join(dir, "sig"))
			if err != nil {
				t.Fatal(err)
			}
			p := policy(t, `{'default':[{'type':'sigstoreSigned','keyData':'`+base64.StdEncoding.EncodeToString(pub)+`'}]}`)
			s := Signature{Payload: []byte(payload), Base64Signature: base64.StdEncoding.EncodeToString(raw)}
			if err := p.Check(context.Background(), subject(t, reference, digest), holding(digest, s)); err != nil {
				t.Error(err)
			}
		})
	}
}

// FuzzParsePolicy: no panic, and what is accepted decides.
func FuzzParsePolicy(f *testing.F) {
	key := newEd25519(f)
	for _, text := range []string{
		`{"default":[{"type":"reject"}]}`,
		`{"default":[{"type":"insecureAcceptAnything"}],"transports":{"docker":{"*.example.com":[{"type":"reject"}],"quay.io/a:v1":[{"type":"reject"}]}}}`,
		`{"default":[{"type":"sigstoreSigned","keyPath":"/x","signedIdentity":{"type":"remapIdentity","prefix":"a:5000/b","signedPrefix":"c.io"}}]}`,
		`{"default":[{"type":"sigstoreSigned","keyData":"` + key.base64() + `","signedIdentity":{"type":"exactReference","dockerReference":"a:b"}}]}`,
	} {
		f.Add([]byte(text), "quay.io/a:v1")
	}
	digest := digestOf("image")
	f.Fuzz(func(t *testing.T, raw []byte, reference string) {
		p, err := ParsePolicy(raw)
		if err != nil {
			return
		}
		if len(p.fallback) == 0 {
			t.Fatal("a policy without a default")
		}
		for scope := range p.scopes {
			if len(p.scopes[scope]) == 0 {
				t.Fatalf("scope %q without requirements", scope)
			}
		}
		ref, err := name.ParseReference(reference)
		if err != nil {
			return
		}
		err = p.Check(context.Background(), Subject{ref, []v1.Hash{digest}}, holding(digest))
		if err != nil && !errors.Is(err, ErrDenied) {
			t.Fatalf("undecided: %v", err)
		}
	})
}

// FuzzParsePayload: no panic, and what is accepted names a digest and a repository.
func FuzzParsePayload(f *testing.F) {
	f.Add([]byte(payloadFor("quay.io/a/b:v1", digestOf("x"))))
	f.Add([]byte(payloadFor("busybox", digestOf("x"))))
	f.Add([]byte(payloadFor("quay.io/a@"+digestOf("y").String(), digestOf("x"))))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePayload(raw, payloadType)
		if err != nil {
			return
		}
		if p.digest.Algorithm == "" || p.digest.Hex == "" || !strings.Contains(p.signed.repo, "/") {
			t.Fatalf("accepted %q as %+v", raw, p)
		}
		again, err := parseReference(p.signed.String())
		if err != nil || again != p.signed {
			t.Fatalf("%q reads as %+v, %v", p.signed.String(), again, err)
		}
	})
}
