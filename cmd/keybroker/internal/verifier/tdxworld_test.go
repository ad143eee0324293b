// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/attest/tdxtest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// tdxWorld is a TDX machine below a root of its own, and all that Intel publishes on it.
type tdxWorld struct {
	*tdxtest.Platform
	dir     string
	version uint16
	body    []byte
	log     []byte
	edit    func(quote []byte)
	after   func() // what happens to what Intel published
	in      Input
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := tdxtest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func issue(t testing.TB, name string, isCA bool, key *ecdsa.PrivateKey, parent *x509.Certificate, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	c, err := tdxtest.Issue(name, isCA, key, parent, by)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newTDXWorld(t testing.TB, version uint16) *tdxWorld {
	t.Helper()
	platform, err := tdxtest.New()
	if err != nil {
		t.Fatal(err)
	}
	w := &tdxWorld{Platform: platform, dir: t.TempDir(), version: version}
	sum, err := evidence.SHA256.Sum([]byte("the initdata"))
	if err != nil {
		t.Fatal(err)
	}
	w.in = Input{TEE: evidence.TDX, ReportData: reportData(t), InitData: Digest{evidence.SHA256, sum}, Now: time.Now()}
	w.in.Registration = owner.Registration{
		ID: "web", TEEs: []evidence.TEE{evidence.TDX}, InitData: []string{w.in.InitData.String()}, TestRoots: true,
		TDX: &owner.TDXReference{Measurements: []string{strings.Repeat("ab", 48)}},
	}
	w.body = tdxtest.NewTD(bytes.Repeat([]byte{0xab}, 48), sum).Body(version, nil)
	data := w.in.ReportData.Bytes64()
	copy(w.body[520:], data[:])
	return w
}

// bare takes Intel's tables away from a registration that does without.
func (w *tdxWorld) bare() {
	w.in.Registration.TDX.AcceptMissingCollateral = true
	w.after = func() { os.RemoveAll(filepath.Join(w.dir, "tdx")) }
}

func (w *tdxWorld) verify(t testing.TB) Verdict {
	t.Helper()
	return w.verifier(t).Verify(w.in)
}

// verifier is one with what Intel publishes; the evidence is in w.in then.
func (w *tdxWorld) verifier(t testing.TB) *Verifier {
	t.Helper()
	if err := w.Publish(w.dir); err != nil {
		t.Fatal(err)
	}
	if w.after != nil {
		w.after()
	}
	v, err := New(Config{TDXTestRoot: toPEM(w.Root), Collateral: w.dir})
	if err != nil {
		t.Fatal(err)
	}
	quote, err := w.Quote(w.version, w.body)
	if err != nil {
		t.Fatal(err)
	}
	if w.edit != nil {
		w.edit(quote)
	}
	if w.in.Evidence, err = (evidence.TDXEvidence{Quote: quote, EventLog: w.log}).Encode(); err != nil {
		t.Fatal(err)
	}
	return v
}
