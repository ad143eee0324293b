// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// wantRefused runs one table of hostile bodies against one parser.
func wantRefused[T any](t *testing.T, parse func([]byte) (T, error), cases [][3]string) {
	t.Helper()
	for _, tc := range cases {
		name, text, want := tc[0], tc[1], tc[2]
		if got, err := parse([]byte(text)); err == nil {
			t.Errorf("%s: accepted as %+v", name, got)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want %q", name, err, want)
		}
	}
}

func TestRequest(t *testing.T) {
	q := Request{TEE: SNP, Hashes: SupportedHashes()}
	const want = `{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sha256","sha384","sha512"]}}`
	if got := string(q.Encode()); got != want {
		t.Errorf("request\n got %s\nwant %s", got, want)
	}
	for _, tc := range []struct {
		text   string
		hashes []HashAlgorithm
	}{
		{want, SupportedHashes()},
		{`{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sm3","sha512"]}}`, []HashAlgorithm{SHA512}},
		{`{"version":"0.4.0","tee":"snp","extra-params":{"other":1}}`, nil},
		{`{"version":"0.4.0","tee":"snp","extra-params":""}`, nil},
		{`{"version":"0.4.0","tee":"snp","extra-params":null}`, nil},
		{` {"tee":"snp","version":"0.4.0"} `, nil},
	} {
		got, err := ParseRequest([]byte(tc.text))
		if err != nil || got.TEE != SNP || !slices.Equal(got.Hashes, tc.hashes) {
			t.Errorf("parsing %s: got %+v, %v", tc.text, got, err)
		}
	}
	wantRefused(t, ParseRequest, [][3]string{
		{"other version", `{"version":"0.3.0","tee":"snp","extra-params":""}`, `version is "0.3.0"`},
		{"libkrun's version", `{"version":"0.0.0","tee":"snp","extra-params":"{}"}`, `version is "0.0.0"`},
		{"semver range", `{"version":"=0.4.0","tee":"snp"}`, "version"},
		{"unknown TEE", `{"version":"0.4.0","tee":"SNP"}`, `unknown TEE "SNP"`},
		{"TEE of terminal escapes", `{"version":"0.4.0","tee":"\u001b[2J"}`, `unknown TEE "\x1b[2J"`},
		{"second tee", `{"version":"0.4.0","tee":"snp","tee":"sample"}`, "occurs twice"},
		{"second tee inside extra-params", `{"version":"0.4.0","tee":"snp","extra-params":{"a":1,"a":2}}`, "occurs twice"},
		{"unknown member", `{"version":"0.4.0","tee":"snp","workload_id":"w"}`, `unknown member "workload_id"`},
		{"no hash in common", `{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":["sm3"]}}`, "no hash algorithm in common"},
		{"empty list", `{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":[]}}`, "no hash algorithm in common"},
		{"list of numbers", `{"version":"0.4.0","tee":"snp","extra-params":{"supported-hash-algorithms":[1]}}`, "list of strings"},
		{"extra-params a number", `{"version":"0.4.0","tee":"snp","extra-params":1}`, "neither a string nor an object"},
		{"invalid UTF-8", "{\"version\":\"0.4.0\",\"tee\":\"snp\xff\"}", "malformed"},
		{"too big", strings.Repeat(" ", MaxRequestSize) + want, "at most"},
	})
	var version *VersionError
	if _, err := ParseRequest([]byte(`{"version":"0.3.0","tee":"snp"}`)); !errors.As(err, &version) || version.Got != `"0.3.0"` {
		t.Errorf("version mismatch is %v, want a *VersionError", err)
	}
}

func TestChallenge(t *testing.T) {
	for _, h := range SupportedHashes() {
		text, err := Challenge{Nonce: nonceVector, Hash: h}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseChallenge(text)
		if err != nil || got.Nonce != nonceVector || got.Hash != h {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for text, want := range map[string]HashAlgorithm{
		`{"nonce":"n","extra-params":""}`: SHA384,
		`{"nonce":"n"}`:                   SHA384,
		`{"nonce":"n","extra-params":{}}`: SHA384,
		`{"nonce":"n","extra-params":{"selected-hash-algorithm":"SHA512"}}`: SHA512,
	} {
		if got, err := ParseChallenge([]byte(text)); err != nil || got.Hash != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	wantRefused(t, ParseChallenge, [][3]string{
		{"empty nonce", `{"nonce":""}`, "nonce is 0 bytes"},
		{"over-long nonce", `{"nonce":"` + strings.Repeat("n", MaxNonceSize+1) + `"}`, "nonce is 1025 bytes"},
		{"no nonce", `{"extra-params":""}`, "missing"},
		{"nonce a number", `{"nonce":1}`, "not a string"},
		{"sm3", `{"nonce":"n","extra-params":{"selected-hash-algorithm":"sm3"}}`, `unsupported hash algorithm "sm3"`},
		{"sha1", `{"nonce":"n","extra-params":{"selected-hash-algorithm":"sha1"}}`, `unsupported hash algorithm "sha1"`},
		{"hash a number", `{"nonce":"n","extra-params":{"selected-hash-algorithm":384}}`, "not a string"},
		{"hash null", `{"nonce":"n","extra-params":{"selected-hash-algorithm":null}}`, "missing"},
		{"extra-params with text", `{"nonce":"n","extra-params":"x"}`, "not empty"},
		{"extra-params a list", `{"nonce":"n","extra-params":[]}`, "not a JSON object"},
		{"second nonce", `{"nonce":"n","nonce":"m"}`, "occurs twice"},
		{"unknown member", `{"nonce":"n","token":"t"}`, "unknown member"},
		{"lone surrogate", `{"nonce":"\ud800"}`, "malformed"},
	})
}

func TestToken(t *testing.T) {
	const jwt = "eyJhbGciOiJFUzI1NiJ9.e30.c2ln"
	text, err := EncodeToken([]byte(jwt))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseToken(text); err != nil || string(got) != jwt {
		t.Errorf("got %s, %v", got, err)
	}
	wantRefused(t, ParseToken, [][3]string{
		{"header injection", `{"token":"a.b.c\r\nX: y"}`, "JWT part"},
		{"two parts", `{"token":"e30.e30"}`, "2 parts"},
		{"unsigned", `{"token":"e30.e30."}`, "part 3"},
		{"encrypted", `{"token":"e30.e30.e30.e30.e30"}`, "5 parts"},
		{"number", `{"token":1}`, "not a string"},
		{"second token", `{"token":"e30.e30.e30","token":"e30.e30.e31"}`, "occurs twice"},
		{"too big", `{"token":"` + strings.Repeat("a", MaxTokenSize) + `"}`, "at most"},
	})
}

func TestErrorInformation(t *testing.T) {
	text, err := ErrorInformation{Variant: "PolicyDeny", Detail: "no <b> for you"}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"type":"https://github.com/confidential-containers/kbs/errors/PolicyDeny","detail":"no <b> for you"}`
	if string(text) != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if got, err := ParseErrorInformation(text); err != nil || got.Variant != "PolicyDeny" || got.Detail != "no <b> for you" {
		t.Errorf("got %+v, %v", got, err)
	}
	hostile := `{"type":"x\u001b[31m","detail":"` + `line\nforged level=INFO\u202e` + strings.Repeat("é", 400) + `","more":1}`
	got, err := ParseErrorInformation([]byte(hostile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(got.Detail+got.Variant, "\n\x1b\u202e") || len(got.Detail) > maxErrorDetail+len("…") {
		t.Errorf("detail is not clean: %q", got.Detail)
	}
	if !strings.HasSuffix(got.Detail, "é…") {
		t.Errorf("detail is cut inside a character: %q", got.Detail)
	}
	wantRefused(t, ParseErrorInformation, [][3]string{
		{"html", `<html>`, "not a JSON object"},
		{"no detail", `{"type":"t"}`, "missing"},
	})
}

func TestAttestation(t *testing.T) {
	initData := []byte("version = \"0.1.0\"\r\n# <é> \u2028 \\ \" \t\n")
	for _, doc := range [][]byte{nil, {}, initData} {
		d := mustRuntimeData(t, "n<&>\u2028", mustJWK(t, rfc7517Key), `{"sampledevice":{}}`)
		in := Attestation{InitData: doc, RuntimeData: d, Evidence: []byte(`{"svn":"1","big":18446744073709551615}`)}
		text, err := in.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Contains(text, d.Wire()) {
			t.Errorf("the wire does not carry the hashed bytes: %s", text)
		}
		out, err := ParseAttestation(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out.InitData, doc) || (out.InitData == nil) != (doc == nil) {
			t.Errorf("initdata got %q, want %q", out.InitData, doc)
		}
		if !bytes.Equal(out.RuntimeData.Bound(), d.Bound()) || string(out.Evidence) != string(in.Evidence) {
			t.Errorf("got %s and %s", out.RuntimeData.Bound(), out.Evidence)
		}
	}
}

func TestAttestationRefuses(t *testing.T) {
	ok := `{"init-data":null,"runtime-data":{"nonce":"n","tee-pubkey":` + rfc7517Key + `},` +
		`"tee-evidence":{"primary_evidence":{"svn":"1"},"additional_evidence":""}}`
	if _, err := ParseAttestation([]byte(ok)); err != nil {
		t.Fatal(err)
	}
	swap := func(from, to string) string { return strings.Replace(ok, from, to, 1) }
	wantRefused(t, ParseAttestation, [][3]string{
		{"protocol 0.3 key place", swap(`"init-data":null`, `"tee-pubkey":{}`), "unknown member"},
		{"hyphenated additional evidence", swap(`additional_evidence`, `additional-evidence`), "missing"},
		{"duplicate key deep in evidence", swap(`"svn":"1"`, `"svn":"1","svn":"2"`), "occurs twice"},
		{"duplicate runtime-data", swap(`"init-data":null`, `"runtime-data":{}`), "occurs twice"},
		{"extra JWK member", swap(`"kty":"EC"`, `"kty":"EC","use":"enc"`), `unknown member "use"`},
		{"extra runtime data", swap(`"nonce":"n"`, `"nonce":"n","user":"u"`), `unknown member "user"`},
		{"evidence as text", swap(`{"svn":"1"}`, `"{}"`), "not an object"},
		{"evidence null", swap(`{"svn":"1"}`, `null`), "missing"},
		{"json initdata", swap(`"init-data":null`, `"init-data":{"format":"json","body":"{}"}`), `unsupported format "json"`},
		{"initdata as text", swap(`"init-data":null`, `"init-data":"x"`), "not a JSON object"},
		{"huge initdata", swap(`"init-data":null`, `"init-data":{"format":"toml","body":"`+strings.Repeat("a", MaxInitDataSize+1)+`"}`), "at most"},
		{"truncated", ok[:len(ok)-3], "malformed"},
		{"second body", ok + ok, "malformed"},
		{"empty", "", "not a JSON object"},
	})
	for name, a := range map[string]Attestation{
		"no runtime data": {Evidence: []byte(`{}`)},
		"no evidence":     {RuntimeData: mustRuntimeData(t, "n", mustJWK(t, rfc7517Key), "")},
		"binary initdata": {RuntimeData: mustRuntimeData(t, "n", mustJWK(t, rfc7517Key), ""), Evidence: []byte(`{}`), InitData: []byte{0xff}},
		"over the cap": {RuntimeData: mustRuntimeData(t, "n", mustJWK(t, rfc7517Key), ""),
			Evidence: []byte(`"` + strings.Repeat("a", MaxAttestationSize) + `"`)},
	} {
		if _, err := a.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func TestNamesAndHashes(t *testing.T) {
	for _, name := range []string{"snp", "tdx", "sample", "az-snp-vtpm", "az-tdx-vtpm"} {
		if tee, err := ParseTEE(name); err != nil || string(tee) != name {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", "SHA384", "sha-384", "sm3", "sha1", "md5"} {
		if _, err := ParseHashAlgorithm(name); err == nil {
			t.Errorf("hash %q accepted", name)
		}
	}
	if HashAlgorithm("").Size() != 0 {
		t.Error("the zero hash has a size")
	}
}

// A body of the full size can be nothing but member names, which a reader that looks for repeated ones has to keep.
// Anybody may send one before he has shown anything.
func TestAttestationOfMembersIsRefusedUnread(t *testing.T) {
	var members strings.Builder
	for i := 0; members.Len() < MaxAttestationSize-1000; i++ {
		fmt.Fprintf(&members, `"%x":{"a":0},`, i)
	}
	for name, evidence := range map[string]string{
		"nested":               "{" + members.String() + `"z":0}`,
		"behind escaped quote": `{"a":"\\\"",` + members.String() + `"z":0}`,
	} {
		raw := []byte(`{"init-data":null,"runtime-data":{},"tee-evidence":{"primary_evidence":` + evidence + `,"additional_evidence":""}}`)
		if len(raw) > MaxAttestationSize {
			t.Fatalf("%s: %d bytes", name, len(raw))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := ParseAttestation(raw)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), "members") {
			t.Errorf("%s: got %v", name, err)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, n)
		}
	}
	// Colons inside of texts are none.
	text := strings.Repeat(`a: \"b\": {}`, maxMembers)
	if n := countMembers([]byte(`{"a":"` + text + `","b":{"c":[":",1]}}`)); n != 3 {
		t.Errorf("%d members, want 3", n)
	}
}
