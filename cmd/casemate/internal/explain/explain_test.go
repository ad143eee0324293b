// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tdx-guest/testing/testdata"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/kbs/kbstest"
)

// attester makes evidence as it is told to.
type attester struct {
	tee  evidence.TEE
	make func(evidence.ReportData) (json.RawMessage, error)
}

func (a attester) TEE() evidence.TEE { return a.tee }

func (a attester) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	return a.make(r)
}

func sampleEvidence(r evidence.ReportData) (json.RawMessage, error) {
	return evidence.SampleEvidence{SVN: "1", ReportData: r.Digest()}.Encode()
}

// handshake returns the transcript of one, which mode spoils.
func handshake(t *testing.T, a attester, doc []byte, mode kbstest.Mode, devices ...kbs.Attester) kbs.Transcript {
	t.Helper()
	server := kbstest.Start()
	defer server.Close()
	server.Verify = func(evidence.Attestation, evidence.TEE, evidence.ReportData) error { return nil }
	server.Misbehave(mode)
	var last kbs.Transcript
	c, err := kbs.New(kbs.Config{URL: server.URL, AllowPlainHTTP: true, Attester: a, Devices: devices, InitData: doc, Transcript: func(t kbs.Transcript) { last = t }})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Token(t.Context()) // its outcome is in the transcript
	return last
}

func claim(x *Explanation, name string) Claim {
	for _, c := range x.Claims {
		if c.Name == name {
			return c
		}
	}
	return Claim{}
}

func text(t *testing.T, x *Explanation) string {
	t.Helper()
	var b strings.Builder
	if err := x.Print(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func newDocument(t *testing.T) *initdata.InitData {
	t.Helper()
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{"casemate.toml": "workload = \"web\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDenials(t *testing.T) {
	d := newDocument(t)
	transcript := handshake(t, attester{evidence.Sample, sampleEvidence}, d.Raw(), kbstest.AttestDenied)
	transcript.Detail = "attestation denied [initdata-listed], reference r-1"
	const audit = `{"time":"2026-01-01T00:00:00Z","id":"r-0","event":"attest","allowed":false,"rule":"vmpl","wanted":"0","found":"1"}
{"time":"2026-01-01T00:00:00Z","id":"r-1","event":"release","allowed":false,"rule":"policy","wanted":"x","found":"y"}

{"time":"2026-01-01T00:00:00Z","id":"r-1","event":"attest","allowed":false,"workload":"web","rule":"initdata-listed","wanted":"sha256:aa","found":"sha256:bb","also":["measurement"]}
`
	digest := fmt.Sprintf("sha256:%x", d.Digest())
	x, err := New(transcript, []byte(audit))
	if err != nil {
		t.Fatal(err)
	}
	if x.Outcome != Refused || x.Rule != "initdata-listed" || x.Claim != "initdata" || x.Sent != digest || x.Wanted != "sha256:aa" || x.Found != "sha256:bb" ||
		x.Workload != "web" || x.Reference != "r-1" || !slices.Equal(x.Also, []string{"measurement"}) {
		t.Errorf("got %+v", x)
	}
	for _, want := range []string{`refused by rule "initdata-listed"`, digest, "wanted          sha256:aa", "found           sha256:bb", "also            measurement"} {
		if out := text(t, x); !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	for name, c := range map[string]struct {
		detail, audit, rule, want string
	}{
		"the guest alone":          {transcript.Detail, "", "initdata-listed", "keybroker log --state DIR --id r-1 --json"},
		"another handshake's log":  {"attestation denied [vmpl], reference r-9", audit, "vmpl", "has no record of this handshake"},
		"denied without reference": {"attestation denied [request]", audit, "request", `refused by rule "request"`},
		"another relying party":    {"RCAR handshake Attest failed", audit, "", "RCAR handshake Attest failed"},
	} {
		transcript.Detail = c.detail
		transcript.Error = "attesting: denied by the KBS: status 401, AttestationError: " + c.detail
		var log []byte
		if c.audit != "" {
			log = []byte(c.audit)
		}
		x, err := New(transcript, log)
		if err != nil || x.Rule != c.rule || x.Wanted != "" || !strings.Contains(text(t, x), c.want) {
			t.Errorf("%s: %+v, %v", name, x, err)
		}
	}
	transcript.Detail = "attestation denied [vmpl], reference r-1"
	if x, err := New(transcript, []byte("not a log\n")); err == nil {
		t.Errorf("got %+v from another file", x)
	}
}

func TestOutcomesWithoutAVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		a    attester
		mode kbstest.Mode
		want []string
	}{
		"no evidence":     {attester{evidence.Sample, func(evidence.ReportData) (json.RawMessage, error) { return nil, errors.New("firmware is silent") }}, "", []string{"nothing was sent", "failed", "firmware is silent"}},
		"broker is silly": {attester{evidence.Sample, sampleEvidence}, kbstest.AttestError, []string{"sent", "failed", "status 500"}},
		"protocol":        {attester{evidence.Sample, sampleEvidence}, kbstest.AuthDenied, []string{"nothing was sent", "refused", "Version Mismatch"}},
		"accepted":        {attester{evidence.Sample, sampleEvidence}, "", []string{"accepted", "it binds the nonce and the key", "initdata        none"}},
		"wrong binding": {attester{evidence.Sample, func(evidence.ReportData) (json.RawMessage, error) {
			return sampleEvidence(evidence.WorkloadReportData(nil))
		}}, "", []string{"does NOT bind", "refused"}},
	} {
		x, err := New(handshake(t, c.a, nil, c.mode), nil)
		if err != nil {
			t.Fatal(err)
		}
		out := text(t, x)
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in:\n%s", name, want, out)
			}
		}
		var b strings.Builder
		if err := x.PrintJSON(&b); err != nil || !json.Valid([]byte(b.String())) {
			t.Errorf("%s: %v: %s", name, err, b.String())
		}
	}
}

// The claims are those of the evidence, on the machines that are attested.
func TestClaims(t *testing.T) {
	d := newDocument(t)
	host := d.HostData()
	snpAttester := attester{evidence.SNP, func(r evidence.ReportData) (json.RawMessage, error) {
		chip, err := snptest.New(snptest.Params{
			Product: "Milan", Measurement: strings.Repeat("5e", 48), HostData: hex.EncodeToString(host[:]), ChipID: strings.Repeat("c1", 64),
		})
		if err != nil {
			return nil, err
		}
		e, err := chip.Evidence(r.Bytes64())
		if err != nil {
			return nil, err
		}
		return e.Encode()
	}}
	x, err := New(handshake(t, snpAttester, d.Raw(), ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Claim{
		"tee": {Value: "snp"}, "vmpl": {Value: "0"}, "measurement": {Value: strings.Repeat("5e", 48)}, "workload": {Value: "web", Note: "as initdata's casemate.toml says"},
		"host data": {Value: fmt.Sprintf("%x", host), Note: "it is the digest of the initdata that was sent"},
	} {
		if got := claim(x, name); got.Value != want.Value || want.Note != "" && got.Note != want.Note {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if got := claim(x, "report data"); !strings.HasPrefix(got.Note, "it binds") {
		t.Errorf("got %+v", got)
	}
	host[0] ^= 1
	if x, err = New(handshake(t, snpAttester, d.Raw(), ""), nil); err != nil || !strings.Contains(claim(x, "host data").Note, "NOT") {
		t.Errorf("another HOST_DATA: %+v, %v", claim(x, "host data"), err)
	}
	// A recorded quote: bound to another handshake, launched without our initdata.
	tdxAttester := attester{evidence.TDX, func(evidence.ReportData) (json.RawMessage, error) {
		return evidence.TDXEvidence{Quote: bytes.TrimSuffix(testdata.RawQuote, []byte("\nextra bytes(only for testing purpose)\n"))}.Encode()
	}}
	if x, err = New(handshake(t, tdxAttester, d.Raw(), ""), nil); err != nil {
		t.Fatal(err)
	}
	if got := claim(x, "measurement"); len(got.Value) != 96 {
		t.Errorf("MRTD: %+v of %+v", got, x.Claims)
	}
	if got := claim(x, "report data"); !strings.Contains(got.Note, "NOT") {
		t.Errorf("a quote of another handshake: %+v", got)
	}
	if got := claim(x, "event log"); got.Value != "none" {
		t.Errorf("got %+v", got)
	}
	other := attester{evidence.SNP, func(evidence.ReportData) (json.RawMessage, error) { return []byte(`{"a":1}`), nil }}
	if x, err = New(handshake(t, other, nil, ""), nil); err != nil || !strings.Contains(claim(x, "evidence").Note, "not readable") {
		t.Errorf("evidence of another form: %+v, %v", claim(x, "evidence"), err)
	}
}

// TestTPMClaims: a quote over registers that record the initdata, and over others.
func TestTPMClaims(t *testing.T) {
	d := newDocument(t)
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	registers := evidence.TPMRegisterValues{0: {1}, evidence.TPMInitDataRegister: evidence.ExtendTPM([32]byte{}, d.Digest())}
	signed := registers
	tpm := attester{evidence.TPM, func(r evidence.ReportData) (json.RawMessage, error) {
		// TPMS_ATTEST of a quote (TPM 2.0 Library part 2, section 10.12.12).
		bound, digest, be := r.Bytes32(), signed.Digest(), binary.BigEndian
		m := append(be.AppendUint16(be.AppendUint32(nil, 0xFF544347), 0x8018), 0, 0, 0, 32)
		m = append(append(m, bound[:]...), make([]byte, 17+8)...)
		m[len(m)-9] = 1 // the clock is safe
		m = append(m, 0, 0, 0, 1, 0, 0x0B, 3, 0xFF, 0xFF, 0xFF, 0, 32)
		m = append(m, digest[:]...)
		signature := append([]byte{0, 0x14, 0, 0x0B, 1, 0}, make([]byte, 256)...)
		return evidence.TPMEvidence{Message: m, Signature: signature, Registers: registers, AttestationKey: der}.Encode()
	}}
	for _, tt := range []struct{ claim, value, note string }{
		{"report data", "", "it binds"}, {"attestation key", evidence.KeyDigest(der), ""}, {"pcr of initdata", "", "it records the initdata"},
		{"pcrs", fmt.Sprintf("0=01%062d 8=%x", 0, registers[8]), "the rest is zero"},
	} {
		x, err := New(handshake(t, tpm, d.Raw(), ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := claim(x, tt.claim); tt.value != "" && got.Value != tt.value || !strings.HasPrefix(got.Note, tt.note) {
			t.Errorf("%s: got %+v of %+v", tt.claim, got, x.Claims)
		}
	}
	signed[0][0], registers[8] = 2, [32]byte{}
	x, err := New(handshake(t, tpm, d.Raw(), ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := claim(x, "pcrs"); !strings.Contains(got.Note, "NOT") {
		t.Errorf("other registers than were signed: %+v", got)
	}
	if got := claim(x, "pcr of initdata"); got.Note != "no initdata was recorded" {
		t.Errorf("got %+v", got)
	}
}

// What a device says stands apart from what the TEE says, under the device's name.
func TestDeviceClaims(t *testing.T) {
	transcript := handshake(t, attester{evidence.Sample, sampleEvidence}, nil, "", attester{evidence.SampleDevice, func(r evidence.ReportData) (json.RawMessage, error) {
		return evidence.SampleEvidence{SVN: "2", ReportData: r.Digest()}.Encode()
	}})
	x, err := New(transcript, nil)
	if err != nil || x.Outcome != Accepted {
		t.Fatalf("got %+v, %v", x, err)
	}
	for name, note := range map[string]string{"devices": "the TEE's report binds", "sampledevice: report data": "it binds", "report data": "it binds"} {
		if got := claim(x, name); got.Value == "" || !strings.HasPrefix(got.Note, note) {
			t.Errorf("%s: got %+v of %+v", name, got, x.Claims)
		}
	}
	if claim(x, "report data").Value == claim(x, "sampledevice: report data").Value {
		t.Error("TEE and device are bound to the same data")
	}
	transcript = handshake(t, attester{evidence.Sample, sampleEvidence}, nil, "", attester{evidence.SampleDevice, func(evidence.ReportData) (json.RawMessage, error) {
		return sampleEvidence(evidence.WorkloadReportData(nil))
	}})
	transcript.Detail = "attestation denied [sampledevice-report-data], reference r-1"
	x, err = New(transcript, nil)
	if err != nil || x.Outcome != Refused || x.Claim != "sampledevice: report data" || x.Sent == "" || !strings.Contains(claim(x, x.Claim).Note, "NOT") {
		t.Errorf("got %+v, %v", x, err)
	}
	if got := claimOf("tpm-pcr-digest"); got != "tpm: pcrs" {
		t.Errorf("tpm-pcr-digest is about %q", got)
	}
}

// What relying party, host and owner wrote must not move the terminal.
func TestHostileText(t *testing.T) {
	transcript := handshake(t, attester{evidence.Sample, sampleEvidence}, nil, "")
	transcript.Error, transcript.KBS = "\x1b[2J\u202egone\n  wanted  nothing", "https://k\x1b]0;x\a"
	x, err := New(transcript, nil)
	if err != nil {
		t.Fatal(err)
	}
	if out := text(t, x); strings.ContainsFunc(out, func(r rune) bool { return r < ' ' && r != '\n' || r > '~' }) || strings.Contains(out, "\n  wanted  nothing") {
		t.Errorf("got %q", out)
	}
}

// Every rule that the verifier's tables name and that judges a claim is about one that
// is printed.
func TestEveryRuleHasItsClaim(t *testing.T) {
	aboutNoClaim := []string{"format", "signature", "signature-algorithm", "qe-signature", "attestation-key", "qe-identity"}
	for _, file := range []string{"registration.go", "snp.go", "tdx.go", "tpm.go", "sample.go", "devices.go"} {
		raw, err := os.ReadFile("../../../keybroker/internal/verifier/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range strings.Split(string(raw), `{name: "`)[1:] {
			rule, _, _ := strings.Cut(part, `"`)
			if claimOf(rule) == "" && !slices.Contains(aboutNoClaim, rule) {
				t.Errorf("rule %q of %s has no claim", rule, file)
			}
		}
	}
}
