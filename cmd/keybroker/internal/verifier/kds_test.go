// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	sev "github.com/google/go-sev-guest/testing"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
)

// kdsFake answers as AMD documents it (AMD 57230), for one chip.
type kdsFake struct {
	path string // of the one VCEK, with its query
	vcek []byte
	crl  []byte // of Milan
	// vlekCRL and chain are of Milan's VLEKs; nil is not found.
	vlekCRL, chain []byte
	asked          atomic.Int32
	lists          atomic.Int32
}

func (k *kdsFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == "/vcek/v1/Milan/crl" && k.crl != nil:
		k.lists.Add(1)
		_, _ = w.Write(k.crl)
	case r.URL.RequestURI() == "/vlek/v1/Milan/crl" && k.vlekCRL != nil:
		_, _ = w.Write(k.vlekCRL)
	case r.URL.RequestURI() == "/vlek/v1/Milan/cert_chain" && k.chain != nil:
		_, _ = w.Write(k.chain)
	case r.URL.RequestURI() == k.path:
		k.asked.Add(1)
		_, _ = w.Write(k.vcek)
	default:
		k.asked.Add(1)
		w.WriteHeader(http.StatusNotFound)
	}
}

// newKDSWorld is a machine that sends no certificates, and a verifier that asks fake.
func newKDSWorld(t *testing.T, p snptest.Params, fake *kdsFake) *world {
	t.Helper()
	w := newWorld(t, p)
	w.certs = nil
	w.askKDS(t, fake)
	return w
}

func (w *world) askKDS(t *testing.T, fake *kdsFake) {
	t.Helper()
	server := httptest.NewServer(fake)
	t.Cleanup(server.Close)
	var err error
	if w.verifier, err = New(Config{SNPTestRoots: roots(w.machine), Collateral: w.dir, KDS: server.URL}); err != nil {
		t.Fatal(err)
	}
	w.verifier.snp.kds.pace = 0
}

func milanKDSPath() string {
	return "/vcek/v1/Milan/" + strings.Repeat("0123456789abcdef", 8) + "?blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"
}

func TestKDSFetchesOnce(t *testing.T) {
	fake := &kdsFake{path: milanKDSPath()}
	w := newKDSWorld(t, milan(), fake)
	fake.vcek = w.machine.VCEK.Raw
	for range 3 {
		wantAllowed(t, w.verify(t))
	}
	// What was kept serves a keybroker that asks nobody.
	var err error
	if w.verifier, err = New(Config{SNPTestRoots: roots(w.machine), Collateral: w.dir}); err != nil {
		t.Fatal(err)
	}
	wantAllowed(t, w.verify(t))
	if n := fake.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
	kept := filepath.Join(w.dir, "vcek", strings.Repeat("0123456789abcdef", 8), "bl04_tee00_snp24_ucode219_vcek.der")
	if text, err := os.ReadFile(kept); err != nil || string(text) != string(fake.vcek) {
		t.Errorf("kept %d bytes, %v", len(text), err)
	}
}

func TestKDSTurinPath(t *testing.T) {
	p := milan()
	p.Product, p.TCB.FMC = string(evidence.Turin), 1
	p.ChipID = "0102030405060708" + strings.Repeat("00", 56)
	m := machine(t, p)
	raw, err := m.Report([64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	r, err := evidence.ParseSNPReport(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := vcekPath(&r), "/vcek/v1/Turin/0102030405060708?fmcSPL=01&blSPL=04&teeSPL=00&snpSPL=24&ucodeSPL=219"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Whoever answers in AMD's place can only withhold, and nothing bad is kept.
func TestKDSLies(t *testing.T) {
	forged := func(t *testing.T, w *world) []byte { return w.forgedVCEK(t) }
	for name, answer := range map[string]func(t *testing.T, w *world) []byte{
		"nothing":                             func(*testing.T, *world) []byte { return nil },
		"garbage":                             func(*testing.T, *world) []byte { return []byte("<html>") },
		"an endless answer":                   func(*testing.T, *world) []byte { return make([]byte, evidence.MaxSNPCertSize+1) },
		"a certificate that AMD did not make": forged,
		"the intermediate":                    func(_ *testing.T, w *world) []byte { return w.machine.ASK.Raw },
		"another chip's": func(t *testing.T, w *world) []byte {
			p := milan()
			p.ChipID = strings.Repeat("ff", 64)
			return machine(t, p).VCEK.Raw
		},
		"that of other firmware": func(t *testing.T, w *world) []byte {
			p := milan()
			p.TCB.Microcode = 200
			return machine(t, p).VCEK.Raw
		},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &kdsFake{path: milanKDSPath()}
			w := newKDSWorld(t, milan(), fake)
			fake.vcek = answer(t, w)
			wantDenied(t, w.verify(t), "endorsement-key")
			wantDenied(t, w.verify(t), "endorsement-key")
			if n := fake.asked.Load(); n != 1 {
				t.Errorf("asked %d times: a chip that AMD has nothing for is asked for again and again", n)
			}
			if _, err := os.Stat(filepath.Join(w.dir, "vcek")); !os.IsNotExist(err) {
				t.Errorf("something was kept: %v", err)
			}
		})
	}
}

// A guest that makes chips up does not make us ask AMD without end.
func TestKDSIsAskedSparingly(t *testing.T) {
	fake := &kdsFake{}
	w := newKDSWorld(t, milan(), fake)
	for i := range 20 {
		w.edit = func(raw []byte) { raw[0x1A0] = byte(i + 100) }
		if v := w.verify(t); v.Allowed() {
			t.Fatal("allowed without a certificate")
		}
	}
	if n := fake.asked.Load(); n > kdsBurst {
		t.Errorf("asked %d times in a row, want at most %d", n, kdsBurst)
	}
}

// TestKDSIsNotUsedUpByStrangers: reports that are denied in any case cost none of the questions that AMD answers.
func TestKDSIsNotUsedUpByStrangers(t *testing.T) {
	fake := &kdsFake{path: milanKDSPath()}
	w := newKDSWorld(t, milan(), fake)
	fake.vcek = w.machine.VCEK.Raw
	for rule, at := range map[string]int{"vmpl": 0x30, "report-data": 0x50, "measurement": 0x90, "host-data": 0xC0} {
		w.edit = func(raw []byte) { raw[at] ^= 1 }
		for range kdsBurst {
			failed := w.verify(t).Failed()
			if len(failed) != 1 || failed[0].Rule != "endorsement-key" || !strings.Contains(failed[0].Found, "rule "+rule) {
				t.Fatalf("%s: %+v", rule, failed)
			}
		}
	}
	w.edit = nil
	if n := fake.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	wantAllowed(t, w.verify(t))
}

func crlOf(t *testing.T, w *world, at time.Time, revoked ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{SignatureAlgorithm: x509.SHA384WithRSAPSS, Number: big.NewInt(at.Unix()), ThisUpdate: at, NextUpdate: at.Add(2 * time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: at})
	}
	issuer := *w.machine.ARK
	issuer.PublicKey = sev.DefaultArk().Public()
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, sev.DefaultArk())
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestKDSRevocations(t *testing.T) {
	w := newWorld(t, milan())
	w.dir = t.TempDir() // no list yet
	fake := &kdsFake{}
	w.askKDS(t, fake)
	wantDenied(t, w.verify(t), "revocation")
	refresh := func(want string) {
		t.Helper()
		// Of the three lines this AMD has Milan alone.
		err := w.verifier.Refresh(t.Context())
		if err == nil || strings.Contains(err.Error(), "revocation list of Milan") != (want != "") || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	old, now := time.Now().Add(-time.Hour), time.Now().Add(-time.Minute)
	fake.crl = crlOf(t, w, old)
	refresh("")
	wantAllowed(t, w.verify(t))
	fake.crl = crlOf(t, w, now, w.machine.ASK)
	refresh("")
	wantDenied(t, w.verify(t), "revocation")

	// An older list, in which nothing is revoked yet, does not bring the chip back.
	fake.crl = crlOf(t, w, old)
	refresh("")
	wantDenied(t, w.verify(t), "revocation")
	forged := crlOf(t, w, time.Now())
	forged[len(forged)-1] ^= 1
	for name, bad := range map[string][]byte{"not signed by": forged, "not a revocation list": []byte("x"), "over": make([]byte, maxCRLSize+1)} {
		fake.crl = bad
		refresh(name)
		wantDenied(t, w.verify(t), "revocation")
	}
}

func TestKDSConfiguration(t *testing.T) {
	for _, address := range []string{"kdsintf.amd.com", "ftp://kds", "https://", "https://user@kds", "https://kds?x=1"} {
		if _, err := New(Config{Collateral: t.TempDir(), KDS: address}); err == nil {
			t.Errorf("%s is taken", address)
		}
	}
	if _, err := New(Config{KDS: AMDKDS}); err == nil || !strings.Contains(err.Error(), "collateral directory") {
		t.Errorf("without a place to keep: %v", err)
	}
	v, err := New(Config{})
	if err == nil {
		err = v.Refresh(t.Context())
	}
	if err != nil {
		t.Errorf("nobody to ask: %v", fmt.Sprint(err))
	}
}
