// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	sev "github.com/google/go-sev-guest/testing"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// world is a machine, a verifier that trusts it for tests, and a registration of the
// guest that runs on it.
type world struct {
	machine  *snptest.Signer
	verifier *Verifier
	dir      string
	in       Input
	certs    []evidence.SNPCert
	// edit changes a report before it is signed; nil for none.
	edit func(raw []byte)
	// forge changes a report after it is signed; nil for none.
	forge func(raw []byte)
	// rewrite changes the evidence's JSON; nil for none.
	rewrite func(text string) string
}

func milan() snptest.Params {
	return snptest.Params{
		Product: string(evidence.Milan), TCB: snptest.TCB{Bootloader: 4, SNP: 24, Microcode: 219}, ChipID: strings.Repeat("0123456789abcdef", 8),
	}
}

// plainMilan is made once: its RSA signatures are most of what a test costs.
var plainMilan = sync.OnceValues(func() (*snptest.Signer, error) { return snptest.New(milan()) })

func machine(t testing.TB, p snptest.Params) *snptest.Signer {
	t.Helper()
	m, err := plainMilan()
	if p != milan() && err == nil {
		m, err = snptest.New(p)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newWorld(t testing.TB, p snptest.Params) *world {
	t.Helper()
	m := *machine(t, p) // a copy, whose Params a test may change
	w := &world{machine: &m, dir: t.TempDir()}
	w.certs = []evidence.SNPCert{
		{Type: evidence.SNPCertARK, DER: m.ARK.Raw}, {Type: evidence.SNPCertASK, DER: m.ASK.Raw}, {Type: evidence.SNPCertVCEK, DER: m.VCEK.Raw},
	}
	w.writeCRL(t, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
	w.open(t)
	sum, err := evidence.SHA256.Sum([]byte("the initdata"))
	if err != nil {
		t.Fatal(err)
	}
	m.Params.HostData = hex.EncodeToString(sum)
	m.Params.Measurement = strings.Repeat("ab", 48)
	w.in = Input{TEE: evidence.SNP, ReportData: reportData(t), InitData: Digest{evidence.SHA256, sum}, Now: time.Now()}
	w.in.Registration = owner.Registration{
		ID: "web", TEEs: []evidence.TEE{evidence.SNP}, InitData: []string{w.in.InitData.String()}, TestRoots: true,
		SNP: &owner.SNPReference{Measurements: []string{m.Params.Measurement}},
	}
	return w
}

// roots is ARK and ASK as PEM.
func roots(m *snptest.Signer) []byte {
	return slices.Concat(toPEM(m.ARK), toPEM(m.ASK))
}

func toPEM(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func (w *world) open(t testing.TB) {
	t.Helper()
	v, err := New(Config{SNPTestRoots: roots(w.machine), Collateral: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	w.verifier = v
}

// writeCRL puts a list of the machine's root into the collateral directory.
func (w *world) writeCRL(t testing.TB, from, to time.Time, revoked ...*x509.Certificate) {
	t.Helper()
	w.writeCRLBy(t, sev.DefaultArk(), from, to, revoked...)
}

func (w *world) writeCRLBy(t testing.TB, key *rsa.PrivateKey, from, to time.Time, revoked ...*x509.Certificate) {
	t.Helper()
	list := &x509.RevocationList{SignatureAlgorithm: x509.SHA384WithRSAPSS, Number: big.NewInt(1), ThisUpdate: from, NextUpdate: to}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: from})
	}
	issuer := *w.machine.ARK
	issuer.PublicKey = key.Public()
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(w.dir, "crl", "test.crl"), der)
}

func writeFile(t testing.TB, name string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// report is a fresh report as the world has it now.
func (w *world) report(t testing.TB) []byte {
	t.Helper()
	raw, err := w.machine.Report(w.in.ReportData.Bytes64())
	if err != nil {
		t.Fatal(err)
	}
	if w.edit != nil {
		w.edit(raw)
		if err := w.machine.Sign(raw); err != nil {
			t.Fatal(err)
		}
	}
	if w.forge != nil {
		w.forge(raw)
	}
	return raw
}

// verify judges the guest's evidence.
func (w *world) verify(t testing.TB) Verdict {
	t.Helper()
	return w.verifyRaw(t, w.report(t))
}

func (w *world) verifyRaw(t testing.TB, raw []byte) Verdict {
	t.Helper()
	ev, err := encode(raw, w.certs)
	if err != nil {
		t.Fatal(err)
	}
	if w.rewrite != nil {
		ev = json.RawMessage(w.rewrite(string(ev)))
	}
	w.in.Evidence = ev
	return w.verifier.Verify(w.in)
}

// encode is the JSON form of a report, which not every sequence of bytes has.
func encode(raw []byte, certs []evidence.SNPCert) (json.RawMessage, error) {
	report, err := evidence.ParseSNPReport(raw)
	if err != nil {
		return nil, err
	}
	return evidence.SNPEvidence{Report: report, Certs: certs}.Encode()
}

func reportData(t testing.TB) evidence.ReportData {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwk, err := evidence.NewECJWK(key.PublicKey())
	if err != nil {
		t.Fatal(err)
	}
	rd, err := evidence.NewRuntimeData("bm9uY2U=", jwk, "")
	if err != nil {
		t.Fatal(err)
	}
	data, err := rd.ReportData(evidence.DefaultHash)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// wantDenied fails unless v denies by exactly these rules.
func wantDenied(t testing.TB, v Verdict, rules ...string) {
	t.Helper()
	if v.Allowed() {
		t.Fatalf("allowed, want denied by %v", rules)
	}
	var got []string
	for _, f := range v.Failed() {
		got = append(got, f.Rule)
		if f.Wanted == "" || f.Found == "" {
			t.Errorf("rule %s says wanted %q, found %q", f.Rule, f.Wanted, f.Found)
		}
	}
	if !slices.Equal(got, rules) {
		t.Fatalf("denied by %v, want exactly %v: %+v", got, rules, v.Failed())
	}
}

func wantAllowed(t testing.TB, v Verdict) {
	t.Helper()
	if !v.Allowed() {
		t.Fatalf("denied: %+v", v.Failed())
	}
}

func asJSON(t testing.TB, raw json.RawMessage) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}
