// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

const full = `
id = "web"
description = "a web server"
tees = ["snp", "sample"]
initdata = ["sha256:1111111111111111111111111111111111111111111111111111111111111111"]
test_roots = true
accept_unproved = ["agent", "initdata"]
policy = """
package policy
allow := true
"""

[snp]
measurements = ["222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222222"]
accept_missing_crl = true

[snp.minimum_tcb.milan]
bootloader = 4
tee = 0
snp = 24
microcode = 219
`

func TestParseTOML(t *testing.T) {
	r, err := ParseTOML([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Registration{
		ID: "web", Description: "a web server", TEEs: []evidence.TEE{"snp", "sample"},
		InitData: []string{"sha256:" + strings.Repeat("11", 32)}, TestRoots: true, AcceptUnproved: []Part{PartAgent, PartInitData}, Policy: "package policy\nallow := true\n",
		SNP: &SNPReference{Measurements: []string{strings.Repeat("22", 48)}, AcceptMissingCRL: true,
			MinimumTCB: map[string]TCB{"milan": {Bootloader: 4, SNP: 24, Microcode: 219}}},
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got %+v, want %+v", r, want)
	}
	body, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseJSON(body)
	if err != nil || !reflect.DeepEqual(again, r) {
		t.Errorf("through JSON: %+v, %v", again, err)
	}
}

func TestRefusedTOML(t *testing.T) {
	for _, tt := range []struct{ name, old, with, want string }{
		{"syntax", `id = "web"`, `id = `, "line 2"},
		{"unknown key", `id = "web"`, "id = \"web\"\nadmin = true", `line 3: unknown key "admin"`},
		{"unknown key in a table", "accept_missing_crl", "accept_missing_vcek", `unknown key "snp.accept_missing_vcek"`},
		{"unknown table", "[snp.minimum_tcb.milan]", "[snp.maximum_tcb.milan]", "snp.maximum_tcb"},
		{"key in another case", `id = "web"`, `ID = "web"`, `line 2: unknown key "ID"`},
		{"repeated key", `id = "web"`, "id = \"web\"\nid = \"db\"", "line 3"},
		{"repeated in another case", `id = "web"`, "id = \"web\"\nId = \"db\"", `unknown key "Id"`},
		{"wrong type", "test_roots = true", `test_roots = "yes"`, "line 6"},
		{"number over its field", "microcode = 219", "microcode = 256", "out of range"},
		{"negative number", "snp = 24", "snp = -1", "out of range"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(full, tt.old, tt.with, 1)
			if text == full {
				t.Fatal("the case changes nothing")
			}
			if _, err := ParseTOML([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := ParseTOML(bytes.Repeat([]byte("#"), MaxRegistrationSize+1)); err == nil {
		t.Error("a registration over its cap is read")
	}
}

func TestPolicyBeside(t *testing.T) {
	if _, err := ParseTOMLWith([]byte(full), Also{Policy: "package policy"}); err == nil || !strings.Contains(err.Error(), "another was given") {
		t.Errorf("two policies: %v", err)
	}
	start, end := strings.Index(full, "policy ="), strings.Index(full, "[snp]")
	r, err := ParseTOMLWith([]byte(full[:start]+full[end:]), Also{Policy: "package policy"})
	if err != nil || r.Policy != "package policy" {
		t.Errorf("got %q, %v", r.Policy, err)
	}
}

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(r *Registration)
	}{
		{"no id", "0 bytes", func(r *Registration) { r.ID = "" }},
		{"long id", "64 bytes", func(r *Registration) { r.ID = strings.Repeat("a", 64) }},
		{"upper case", "lower-case", func(r *Registration) { r.ID = "Web" }},
		{"path as id", "lower-case", func(r *Registration) { r.ID = "../web" }},
		{"dots as id", "lower-case", func(r *Registration) { r.ID = ".." }},
		{"line break in id", "lower-case", func(r *Registration) { r.ID = "web\n" }},
		{"no tee", "no tees", func(r *Registration) { r.TEEs = nil }},
		{"tee without verifier", "not supported", func(r *Registration) { r.TEEs = []evidence.TEE{"cca"} }},
		{"tdx without values", "no tdx measurement", func(r *Registration) { r.TEEs = append(r.TEEs, evidence.TDX) }},
		{"tdx values alone", "tees lacks", func(r *Registration) { r.TDX = &TDXReference{} }},
		{"revoked tdx accepted", "cannot be accepted", func(r *Registration) {
			r.TEEs = append(r.TEEs, evidence.TDX)
			r.TDX = &TDXReference{Measurements: []string{strings.Repeat("22", 48)}, AcceptTCB: []string{"Revoked"}}
		}},
		{"values of a debug image", "want debug = true", func(r *Registration) { r.SNP.Debug = true }},
		{"tee twice", "twice", func(r *Registration) { r.TEEs = []evidence.TEE{"snp", "snp"} }},
		{"sample without policy", "never affirming", func(r *Registration) { r.Policy = "" }},
		{"no initdata", "no initdata digest", func(r *Registration) { r.InitData = nil }},
		{"zero initdata", "all zero", func(r *Registration) { r.InitData = []string{"sha256:" + strings.Repeat("00", 32)} }},
		{"initdata without algorithm", "ALGORITHM:HEX", func(r *Registration) { r.InitData = []string{strings.Repeat("11", 32)} }},
		{"initdata of unknown algorithm", "unsupported", func(r *Registration) { r.InitData = []string{"md5:" + strings.Repeat("11", 16)} }},
		{"short initdata", "31 bytes", func(r *Registration) { r.InitData = []string{"sha256:" + strings.Repeat("11", 31)} }},
		{"upper-case initdata", "not lower-case hex", func(r *Registration) { r.InitData = []string{"sha256:" + strings.Repeat("AA", 32)} }},
		{"one good and one bad initdata", "not lower-case hex", func(r *Registration) { r.InitData = append(r.InitData, "sha256:xx") }},
		{"snp without values", "no snp measurement", func(r *Registration) { r.SNP = nil }},
		{"no measurement", "no snp measurement", func(r *Registration) { r.SNP.Measurements = nil }},
		{"zero measurement", "all zero", func(r *Registration) { r.SNP.Measurements = []string{strings.Repeat("00", 48)} }},
		{"short measurement", "47 bytes", func(r *Registration) { r.SNP.Measurements = []string{strings.Repeat("22", 47)} }},
		{"values without snp", "tees lacks", func(r *Registration) { r.TEEs = []evidence.TEE{"sample"} }},
		{"unknown product line", "unknown product line", func(r *Registration) { r.SNP.MinimumTCB = map[string]TCB{"Milan": {}} }},
		{"empty minimum", "lists no product line", func(r *Registration) { r.SNP.MinimumTCB = map[string]TCB{} }},
		{"too many digests", "at most", func(r *Registration) { r.InitData = make([]string, MaxAlternatives+1) }},
		{"too many measurements", "at most", func(r *Registration) { r.SNP.Measurements = make([]string, MaxAlternatives+1) }},
		{"long description", "description", func(r *Registration) { r.Description = strings.Repeat("x", MaxDescriptionSize+1) }},
		{"long policy", "policy", func(r *Registration) { r.Policy = strings.Repeat("x", MaxPolicySize+1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := ParseTOML([]byte(full))
			if err != nil {
				t.Fatal(err)
			}
			tt.change(&r)
			if err := r.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestCheckPath(t *testing.T) {
	for path, ok := range map[string]bool{
		"a/b/c": true, "default/key/1": true, "A-_/b.c/9": true, "_/-/0": true,
		"": false, "a/b": false, "a/b/c/d": false, "a//c": false, "/a/b/c": false, "a/b/c/": false, "a/b/.": false, "a/../c": false,
		"a/b/.c": false, "a/b/c d": false, "a/b/c\n": false, "a/b/c%2f": false, "a/b/ü": false, "a/b/c\x00": false,
		"a/b/" + strings.Repeat("c", MaxPathSize): false,
	} {
		if err := CheckPath(path); (err == nil) != ok {
			t.Errorf("CheckPath(%q) = %v", path, err)
		}
	}
}

func FuzzParseTOML(f *testing.F) {
	f.Add([]byte(full))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := ParseTOML(text)
		if err != nil {
			return
		}
		body, err := r.JSON()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseJSON(body)
		if err != nil || !reflect.DeepEqual(again, r) {
			t.Fatalf("through JSON: %+v, %v, want %+v", again, err, r)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	r, err := ParseTOML([]byte(full))
	if err != nil {
		f.Fatal(err)
	}
	body, err := r.JSON()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseJSON(body)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}
