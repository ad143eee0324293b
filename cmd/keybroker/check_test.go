// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs"
)

// saved is what one guest leaves behind, and the files that judge it.
type saved struct {
	dir, root, doc, transcript, registration string
	text                                     string // of the registration
	digest                                   string // of the initdata, in hex
	guest                                    attester
}

func (s saved) file(t *testing.T, name, text string) string {
	t.Helper()
	name = filepath.Join(s.dir, name)
	must(t, os.WriteFile(name, []byte(text), 0o600))
	return name
}

// saveHandshake has a guest attest to a keybroker, which refuses it where the measurement is another than ab….
func saveHandshake(t *testing.T, measurement string) saved {
	t.Helper()
	s := saved{dir: t.TempDir()}
	doc, err := initdata.Encode(evidence.SHA384, map[string]string{"casemate.toml": `workload = "web"`})
	must(t, err)
	d, err := initdata.Parse(doc)
	must(t, err)
	s.guest = launch(t, doc)
	s.guest.signer.Params.Measurement = strings.Repeat(measurement, 48)
	s.root = s.file(t, "ark.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.guest.signer.ARK.Raw})))
	b := start(t, s.dir, "--snp-root", s.root)
	s.digest = fmt.Sprintf("%x", d.Digest())
	s.text = fmt.Sprintf(registrationText, "sha384:"+s.digest, true, strings.Repeat("ab", 48))
	s.registration = s.file(t, "web.toml", s.text)
	wantDone(t, b.owner("register", s.registration)...)
	var last kbs.Transcript
	c, err := kbs.New(kbs.Config{
		URL: b.url, Roots: pinned(t, b), Attester: s.guest, InitData: doc, KeyAlgorithm: kbs.ECP256,
		Transcript: func(t kbs.Transcript) { last = t },
	})
	must(t, err)
	t.Cleanup(c.Close)
	_, _ = c.Token(t.Context()) // the transcript says how it went
	raw, err := last.Encode()
	must(t, err)
	s.transcript, s.doc = s.file(t, "attestation.json", string(raw)), s.file(t, "initdata.toml", string(doc))
	return s
}

// TestCheck: what a keybroker decided is decided again from files, by the same rules.
func TestCheck(t *testing.T) {
	good, bad := saveHandshake(t, "ab"), saveHandshake(t, "cd")
	if out := wantDone(t, "check", good.registration, good.transcript, "--snp-root", good.root); !strings.Contains(out, "accepted, if its nonce is fresh") {
		t.Errorf("printed %q", out)
	}
	if out := wantDone(t, "check", good.registration, good.transcript, "--snp-root", good.root, "--json"); !strings.Contains(out, `"accepted": true`) || !strings.Contains(out, strings.Repeat("ab", 48)) {
		t.Errorf("--json printed %q", out)
	}
	changed := func(old, new string) string {
		if !strings.Contains(good.text, old) {
			t.Fatalf("the registration has no %q", old)
		}
		return good.file(t, "changed.toml", strings.Replace(good.text, old, new, 1))
	}
	for _, tt := range []struct {
		name         string
		registration func() string
		from         saved
		args         []string
		rule         string
	}{
		{"another measurement", func() string { return bad.registration }, bad, nil, "measurement"},
		{"another workload", func() string { return changed(`id = "web"`, `id = "db"`) }, good, nil, "workload"},
		{"other initdata", func() string { return changed(good.digest[:32], strings.Repeat("0", 32)) }, good, nil, "initdata-listed"},
		{"a test root that the workload does not take", func() string { return changed("test_roots = true", "test_roots = false") }, good, nil, "test-root"},
		{"before the chip's certificate", func() string { return good.registration }, good, []string{"--at", "1990-01-01T00:00:00Z"}, "validity"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"check", tt.registration(), tt.from.transcript, "--snp-root", tt.from.root}, tt.args...)
			code, out, errOut := command(t, args...)
			if code != exitFailed || !strings.Contains(errOut, strconv.Quote(tt.rule)) || strings.Contains(out, "accepted") {
				t.Errorf("exit %d, printed %s%s", code, out, errOut)
			}
		})
	}
}

// TestCheckBareEvidence: what casemate evidence prints is judged with the data that it is bound to, and never as a handshake.
func TestCheckBareEvidence(t *testing.T) {
	s := saveHandshake(t, "ab")
	raw, err := s.guest.Evidence(t.Context(), evidence.WorkloadReportData([]byte("challenge")))
	must(t, err)
	bare, data := s.file(t, "evidence.json", string(raw)), s.file(t, "challenge", "challenge")
	base := []string{"check", s.registration, bare, "--snp-root", s.root, "--tee", "snp"}
	wantDone(t, append(base, "--data", data, "--initdata", s.doc)...)
	for name, args := range map[string][]string{
		"report-data": {"--data", s.file(t, "other", "another challenge"), "--initdata", s.doc},
		"initdata":    {"--data", data},
	} {
		if code, out, errOut := command(t, append(base, args...)...); code != exitFailed || !strings.Contains(errOut, name) {
			t.Errorf("%s: exit %d, printed %s%s", name, code, out, errOut)
		}
	}
}

// TestCheckHostileFiles: a transcript comes from a guest.
func TestCheckHostileFiles(t *testing.T) {
	s := saveHandshake(t, "ab")
	raw, err := os.ReadFile(s.transcript)
	must(t, err)
	for name, text := range map[string]string{
		"empty":        "",
		"cut":          string(raw[:len(raw)/2]),
		"nothing sent": `{"kbs":"https://x","began":"2026-01-01T00:00:00Z","took_us":1,"tee":"snp"}`,
		"two TEEs":     strings.Replace(string(raw), `{"kbs"`, `{"tee":"sample","kbs"`, 1),
		"no hash":      strings.Replace(string(raw), `"hash":"sha384"`, `"hash":"md5"`, 1),
		"another TEE":  strings.Replace(string(raw), `"tee":"snp"`, `"tee":"\u001b[2J"`, 1),
	} {
		code, out, errOut := command(t, "check", s.registration, s.file(t, "hostile.json", text), "--snp-root", s.root)
		if code != exitFailed || strings.ContainsRune(out+errOut, '\x1b') {
			t.Errorf("%s: exit %d, printed %q%q", name, code, out, errOut)
		}
	}
}
