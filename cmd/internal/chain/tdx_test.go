// SPDX-License-Identifier: Apache-2.0

//go:build interop

package chain

import (
	"crypto/x509"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-configfs-tsm/configfs/configfsi"

	"github.com/casemate/casemate/agent/attest"
	"github.com/casemate/casemate/agent/attest/tdxtest"
	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

const (
	tdxPath   = "app/config/x"
	tdxSecret = "secret of the TDX guest"
)

// tdxWorld is an owner with a keybroker that knows a test platform's root and collateral.
type tdxWorld struct {
	dir      string
	platform *tdxtest.Platform
	broker   *fixture.Broker
	roots    *x509.CertPool
	ccel     string // a log that real firmware left
	mrtd     []byte
	rtmr     [4][48]byte // what it replays to
}

func newTDXWorld(t *testing.T) *tdxWorld {
	t.Helper()
	w := &tdxWorld{dir: t.TempDir(), roots: x509.NewCertPool(), mrtd: []byte(strings.Repeat("\xa1", 48))}
	var err error
	if w.platform, err = tdxtest.New(); err != nil {
		t.Fatal(err)
	}
	collateral, root := filepath.Join(w.dir, "collateral"), filepath.Join(w.dir, "root.pem")
	if err := w.platform.Publish(collateral); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root, tdxtest.PEM(w.platform.Root), 0o600); err != nil {
		t.Fatal(err)
	}
	w.broker, err = fixture.StartBroker(t.Context(), program("keybroker"), filepath.Join(w.dir, "keybroker"), "", "--tdx-root", root, "--snp-collateral", collateral)
	if err != nil {
		t.Fatalf("%v (`make interop` builds it)", err)
	}
	t.Cleanup(w.broker.Close)
	w.roots.AppendCertsFromPEM([]byte(w.broker.Cert))
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/go-tdx-guest").Output()
	if err != nil {
		t.Fatal(err)
	}
	w.ccel = filepath.Join(strings.TrimSpace(string(out)), "testing/testdata/ccel/ccel_data.dat")
	log, err := os.ReadFile(w.ccel)
	if err != nil {
		t.Fatal(err)
	}
	if w.rtmr, err = evidence.ReplayEventLog(log); err != nil {
		t.Fatal(err)
	}
	return w
}

// initdata writes a document that names a workload.
func (w *tdxWorld) initdata(t *testing.T, name, workload string) (*initdata.InitData, string) {
	t.Helper()
	written, err := fixture.WriteInitData(t.Context(), program("casemate-build"), filepath.Join(w.dir, name), fixture.InitDataOptions{
		Workload: workload, KBS: w.broker.URL, Cert: w.broker.Cert, Policy: acceptAnything,
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(written.File)
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return d, written.Digest
}

// register pins what the guest was launched as, firmware registers included.
func (w *tdxWorld) register(t *testing.T, workload, digest, more string) {
	t.Helper()
	text := fmt.Sprintf("id = %q\ntees = [\"tdx\"]\ninitdata = [%q]\n%s\n[tdx]\nmeasurements = [\"%x\"]\nrtmr1 = [\"%x\"]\nrtmr2 = [\"%x\"]\n",
		workload, digest, more, w.mrtd, w.rtmr[1], w.rtmr[2])
	file, secret := filepath.Join(w.dir, workload+".toml"), filepath.Join(w.dir, workload+".secret")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(secret, []byte(tdxSecret), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"register", file}, {"resource", "set", tdxPath, secret, "--workload", workload}} {
		if _, err := fixture.Run(t.Context(), program("keybroker"), append(args, w.broker.OwnerFlags()...)...); err != nil {
			t.Fatal(err)
		}
	}
}

// guest is a TD with everything that casemate is made of from the kernel's files up.
type tdxGuest struct {
	td       *tdxtest.TD
	events   *eventlog.Log
	attester attest.Attester
}

// boot launches a TD with a digest in MRCONFIGID, after its firmware has measured.
func (w *tdxWorld) boot(t *testing.T, mrConfigID []byte, version uint16) *tdxGuest {
	t.Helper()
	g := &tdxGuest{td: tdxtest.NewTD(w.mrtd, mrConfigID)}
	for i, value := range w.rtmr {
		g.td.SetRegister(i, value)
	}
	var err error
	if g.events, err = eventlog.Open(t.TempDir(), tdxtest.RTMR3{TD: g.td}); err != nil {
		t.Fatal(err)
	}
	g.detect(t, w.platform.TSM(g.td, version), w.ccel, g.events)
	return g
}

func (g *tdxGuest) detect(t *testing.T, tsm configfsi.Client, ccel string, runtime attest.RuntimeLog) {
	t.Helper()
	var err error
	if g.attester, err = attest.Detect(attest.Config{TSM: tsm, EventLog: ccel, Runtime: runtime}); err != nil {
		t.Fatal(err)
	}
}

// ask is a whole handshake and a release, with the initdata document that is sent.
func (w *tdxWorld) ask(t *testing.T, g *tdxGuest, document *initdata.InitData) (string, error) {
	t.Helper()
	client, err := kbs.New(kbs.Config{URL: w.broker.URL, Roots: w.roots, Attester: g.attester, InitData: document.Raw()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	secret, err := client.Key(t.Context(), "kbs:///"+tdxPath)
	return string(secret), err
}

// TestInteropTDXHandshake takes TDX guests, quoted by the kernel's interface under a test
// PCK chain, through the whole handshake with a keybroker that judges them: MRTD, RTMRs,
// initdata in MRCONFIGID, and firmware's and the guest's event log.
func TestInteropTDXHandshake(t *testing.T) {
	w := newTDXWorld(t)
	document, digest := w.initdata(t, "initdata.toml", "td")
	strictly, strictDigest := w.initdata(t, "strict.toml", "strict")
	w.register(t, "td", digest, "test_roots = true\n")
	w.register(t, "strict", strictDigest, "")
	edited, err := initdata.Parse(append(document.Raw(), "# looser\n"...))
	if err != nil {
		t.Fatal(err)
	}
	measured := func(t *testing.T, g *tdxGuest) {
		t.Helper()
		if err := g.events.Measure(eventlog.DomainImages, "PullImage", `{"image":"a", "digest":"sha256:b"}`); err != nil {
			t.Fatal(err)
		}
	}
	for _, version := range []uint16{4, 5} {
		t.Run(fmt.Sprintf("released, quote of version %d", version), func(t *testing.T) {
			g := w.boot(t, document.Digest(), version)
			bound, err := g.attester.(attest.InitDataReader).BoundInitData(t.Context())
			if err != nil || document.Match(bound) != nil {
				t.Fatalf("MRCONFIGID %x, %v", bound, err)
			}
			for range 2 { // before and after something was measured
				if got, err := w.ask(t, g, document); err != nil || got != tdxSecret {
					denial, _ := w.broker.LastDenial(t.Context(), program("keybroker"))
					t.Fatalf("got %q, %v; %s", got, err, denial)
				}
				measured(t, g)
			}
		})
	}
	for _, tt := range []struct {
		name, rule string
		document   *initdata.InitData
		change     func(t *testing.T, g *tdxGuest)
	}{
		{"host-written initdata under the launch's MRCONFIGID", "initdata-listed", edited, func(*testing.T, *tdxGuest) {}},
		{"launched with host-written initdata", "initdata-listed", edited, func(_ *testing.T, g *tdxGuest) { copy(g.td.MRConfigID[:], edited.Digest()) }},
		{"another workload's initdata under the launch's MRCONFIGID", "config-id", strictly, func(*testing.T, *tdxGuest) {}},
		{"launched without initdata", "config-id", document, func(_ *testing.T, g *tdxGuest) { clear(g.td.MRConfigID[:]) }},
		{"other firmware", "measurement", document, func(_ *testing.T, g *tdxGuest) { g.td.MRTD[0] ^= 1 }},
		{"debuggable", "debug", document, func(_ *testing.T, g *tdxGuest) { g.td.Attributes |= 1 }},
		{"other kernel", "rtmr", document, func(t *testing.T, g *tdxGuest) {
			g.td.Extend(1, make([]byte, 48))
			g.detect(t, w.platform.TSM(g.td, 4), filepath.Join(w.dir, "none"), nil)
		}},
		{"RTMR3 extended outside the log", "event-log", document, func(_ *testing.T, g *tdxGuest) { g.td.Extend(3, make([]byte, 48)) }},
		{"the guest's entries left out", "event-log", document, func(t *testing.T, g *tdxGuest) {
			measured(t, g)
			g.detect(t, w.platform.TSM(g.td, 4), w.ccel, nil)
		}},
		{"test root not taken", "test-root", strictly, func(_ *testing.T, g *tdxGuest) { copy(g.td.MRConfigID[:], strictly.Digest()) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := w.boot(t, document.Digest(), 4)
			tt.change(t, g)
			got, err := w.ask(t, g, tt.document)
			if err == nil || got != "" {
				t.Fatalf("got %q", got)
			}
			denial, err := w.broker.LastDenial(t.Context(), program("keybroker"))
			if err != nil || !strings.Contains(denial, "rule   "+tt.rule+"\n") {
				t.Errorf("denied by %s, %v, want rule %s", denial, err, tt.rule)
			}
		})
	}
}
