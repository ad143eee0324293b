// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	sev "github.com/google/go-sev-guest/testing"

	"github.com/casemate/casemate/agent/evidence"
)

// newVLEKWorld is a provider's machine, whose evidence brings the VLEK alone, and a
// keybroker that knows the root and asks fake for the rest.
func newVLEKWorld(t *testing.T, fake *kdsFake) (*world, *sev.AmdSigner) {
	t.Helper()
	w := newWorld(t, milan())
	chain := w.withVLEK(t, evidence.SNPCertVLEK)
	w.in.Registration.SNP.AcceptMissingCRL = false
	w.machine.ARK = chain.Ark // a copy of the machine's, which lists are made by
	w.dir = t.TempDir()
	w.edit = func(raw []byte) { raw[0x48] = 1 << 2 }
	w.forge = func(raw []byte) { signVLEK(t, raw) }
	w.reopen(t, fake, toPEM(chain.Ark))
	fake.crl, fake.vlekCRL = crlOf(t, w, time.Now().Add(-time.Minute)), crlOf(t, w, time.Now().Add(-time.Minute))
	fake.chain = slices.Concat(toPEM(chain.Asvk), toPEM(chain.Ark))
	return w, chain
}

func (w *world) reopen(t *testing.T, fake *kdsFake, roots []byte) {
	t.Helper()
	c := Config{SNPTestRoots: roots, Collateral: w.dir}
	if fake != nil {
		server := httptest.NewServer(fake)
		t.Cleanup(server.Close)
		c.KDS = server.URL
	}
	var err error
	if w.verifier, err = New(c); err != nil {
		t.Fatal(err)
	}
	if fake != nil {
		w.verifier.snp.kds.pace = 0
	}
}

func TestKDSPublishesWhatVLEKsNeed(t *testing.T) {
	fake := &kdsFake{}
	w, chain := newVLEKWorld(t, fake)
	wantDenied(t, w.verify(t), "chain") // this program has AMD's intermediates, not this one
	if err := w.verifier.Refresh(t.Context()); err == nil || strings.Contains(err.Error(), "Milan") {
		t.Fatalf("got %v, want failures of the lines that this AMD lacks", err)
	}
	wantAllowed(t, w.verify(t))
	// What was kept serves a keybroker that asks nobody.
	w.reopen(t, nil, toPEM(chain.Ark))
	wantAllowed(t, w.verify(t))
	if text, err := os.ReadFile(filepath.Join(w.dir, "vlek", "milan.pem")); err != nil || string(text) != string(toPEM(chain.Asvk)) {
		t.Errorf("kept %s, %v, want the intermediate alone", text, err)
	}
	if n := fake.asked.Load(); n != 6 {
		t.Errorf("%d requests beside Milan's, want 3 for each other line", n)
	}
}

// The VLEK itself is never asked for, and no VCEK in its place.
func TestVLEKIsNotFetched(t *testing.T) {
	fake := &kdsFake{}
	w, _ := newVLEKWorld(t, fake)
	w.certs = nil
	wantDenied(t, w.verify(t), "endorsement-key")
	if n := fake.asked.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

func TestKDSVLEKRevocations(t *testing.T) {
	fake := &kdsFake{}
	w, chain := newVLEKWorld(t, fake)
	refresh := func() { _ = w.verifier.Refresh(t.Context()) } // the other lines are missing
	now := time.Now().Add(-time.Minute)

	fake.vlekCRL = nil // withheld
	refresh()
	wantDenied(t, w.verify(t), "revocation") // the list of VCEKs does not stand in for it
	w.acceptMissingCRL()
	wantAllowed(t, w.verify(t))
	w.in.Registration.SNP.AcceptMissingCRL = false

	fake.vlekCRL = crlOf(t, w, now)
	refresh()
	wantAllowed(t, w.verify(t))
	fake.vlekCRL = crlOf(t, w, now.Add(time.Second), chain.Asvk)
	refresh()
	wantDenied(t, w.verify(t), "revocation")
	// Neither an older list of the same kind, nor a newer one of the other, brings it back.
	fake.vlekCRL, fake.crl = crlOf(t, w, now), crlOf(t, w, now.Add(2*time.Second))
	refresh()
	wantDenied(t, w.verify(t), "revocation")
	w.acceptMissingCRL()
	wantDenied(t, w.verify(t), "revocation")
}

// A fresh list of VLEKs is none of VCEKs.
func TestVLEKListDoesNotServeVCEKs(t *testing.T) {
	w := newWorld(t, milan())
	list, err := os.ReadFile(filepath.Join(w.dir, "crl", "test.crl"))
	if err != nil {
		t.Fatal(err)
	}
	w.dir = t.TempDir()
	writeFile(t, filepath.Join(w.dir, "crl", "amd-milan-vlek.crl"), list)
	w.open(t)
	wantDenied(t, w.verify(t), "revocation")
	writeFile(t, filepath.Join(w.dir, "crl", "amd-milan.crl"), list)
	w.open(t)
	wantAllowed(t, w.verify(t))
}

// Without a KDS the owner fills the directory, and one list for all of a root is enough.
func TestOwnersListServesVLEKs(t *testing.T) {
	fake := &kdsFake{}
	w, chain := newVLEKWorld(t, fake)
	writeFile(t, filepath.Join(w.dir, "crl", "mine.crl"), fake.crl)
	writeFile(t, filepath.Join(w.dir, "vlek", "milan.pem"), fake.chain)
	w.reopen(t, nil, toPEM(chain.Ark))
	wantAllowed(t, w.verify(t))
	writeFile(t, filepath.Join(w.dir, "crl", "stale-vlek.crl"), crlOf(t, w, time.Now().Add(-3*time.Hour)))
	w.reopen(t, nil, toPEM(chain.Ark))
	wantDenied(t, w.verify(t), "revocation") // it has one of its own, which counts
}

// Whoever answers in AMD's place can only withhold.
func TestKDSLiesAboutIntermediates(t *testing.T) {
	for name, tt := range map[string]struct {
		answer func(t *testing.T, w *world, chain *sev.AmdSigner) []byte
		want   string
	}{
		"nothing":           {func(*testing.T, *world, *sev.AmdSigner) []byte { return []byte{} }, "no certificate by the root"},
		"garbage":           {func(*testing.T, *world, *sev.AmdSigner) []byte { return []byte("<html>") }, "not PEM"},
		"an endless answer": {func(*testing.T, *world, *sev.AmdSigner) []byte { return make([]byte, MaxTestRoots+1) }, "over"},
		"the root alone":    {func(_ *testing.T, _ *world, chain *sev.AmdSigner) []byte { return toPEM(chain.Ark) }, "no certificate by the root"},
		"another root's": {func(t *testing.T, w *world, chain *sev.AmdSigner) []byte {
			return toPEM(reissue(t, chain.Asvk, chain.Ark, chain.Asvk.PublicKey, sev.DefaultAsk()))
		}, "no certificate by the root"},
		"a private key": {func(*testing.T, *world, *sev.AmdSigner) []byte {
			return []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
		}, "want CERTIFICATE"},
	} {
		t.Run(name, func(t *testing.T) {
			fake := &kdsFake{}
			w, chain := newVLEKWorld(t, fake)
			fake.chain = tt.answer(t, w, chain)
			err := w.verifier.Refresh(t.Context())
			if err == nil || !strings.Contains(err.Error(), "intermediate of VLEKs of Milan: ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if _, err := os.Stat(filepath.Join(w.dir, "vlek")); !os.IsNotExist(err) {
				t.Errorf("something was kept: %v", err)
			}
			wantDenied(t, w.verify(t), "chain")
		})
	}
	// What others put into the directory is not believed either.
	fake := &kdsFake{}
	w, chain := newVLEKWorld(t, fake)
	for _, text := range [][]byte{
		[]byte("x"), make([]byte, MaxTestRoots+1),
		toPEM(reissue(t, chain.Asvk, chain.Ark, chain.Asvk.PublicKey, sev.DefaultAsk())),
	} {
		writeFile(t, filepath.Join(w.dir, "vlek", "milan.pem"), text)
		wantDenied(t, w.verify(t), "chain")
	}
}

// AMD's own intermediates say where their list is, which is where it is asked for.
func TestVLEKListIsWhereAMDSays(t *testing.T) {
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, product := range []evidence.SNPProduct{evidence.Milan, evidence.Genoa, evidence.Turin} {
		root := v.snp.chains.amd[productLine(product)]
		var places []string
		for _, c := range append([]*x509.Certificate{root.ark}, root.intermediates...) {
			places = append(places, c.CRLDistributionPoints...)
		}
		for _, kind := range []keyKind{vcek, vlek} {
			if address, _ := listPlace(product, kind); !slices.Contains(places, AMDKDS+address) {
				t.Errorf("%s is not among %q", AMDKDS+address, places)
			}
		}
	}
}

// A keybroker that stops does not wait for AMD.
func TestRefreshEndsWithItsContext(t *testing.T) {
	w := newWorld(t, milan())
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		cancel()
		rw.WriteHeader(http.StatusNotFound)
	}))
	defer server.Close()
	v, err := New(Config{Collateral: w.dir, KDS: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Refresh(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
