// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"math/big"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	sev "github.com/google/go-sev-guest/testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

// reissue makes a certificate with the subject, extensions and issuer name of like,
// for pub and signed by key, whoever that is.
func reissue(t *testing.T, like, issuer *x509.Certificate, pub crypto.PublicKey, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	parent := *issuer
	parent.PublicKey, parent.SubjectKeyId = key.Public(), nil
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0), RawSubject: like.RawSubject, NotBefore: like.NotBefore, NotAfter: like.NotAfter,
		ExtraExtensions: like.Extensions, SignatureAlgorithm: x509.SHA384WithRSAPSS,
	}, &parent, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// forgedVCEK names AMD's intermediate as its issuer and certifies the key that signs
// the reports; only the signature on it is not the intermediate's.
func (w *world) forgedVCEK(t *testing.T) []byte {
	t.Helper()
	return reissue(t, w.machine.VCEK, w.machine.ASK, w.machine.VCEK.PublicKey, sev.DefaultAsvk()).Raw
}

// The same certificate by the intermediate's key is taken, so that what denies the
// forged ones is who signed them.
func TestReissuedCertificatesAreTaken(t *testing.T) {
	w := newWorld(t, milan())
	w.certs[2].DER = reissue(t, w.machine.VCEK, w.machine.ASK, w.machine.VCEK.PublicKey, sev.DefaultAsk()).Raw
	wantAllowed(t, w.verify(t))

	w = newWorld(t, milan())
	w.verifier.snp.chains.test.intermediates = nil
	w.certs[1].DER = reissue(t, w.machine.ASK, w.machine.ARK, w.machine.ASK.PublicKey, sev.DefaultArk()).Raw
	wantAllowed(t, w.verify(t))
}

// A key that AMD certified on another curve is not one that signs reports.
func TestKeyOnAnotherCurve(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, milan())
	w.certs[2].DER = reissue(t, w.machine.VCEK, w.machine.ASK, key.Public(), sev.DefaultAsk()).Raw
	raw := w.report(t)
	digest := sha512.Sum384(raw[:evidence.SNPSignedSize])
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(r.FillBytes(raw[0x2A0 : 0x2A0+72]))
	slices.Reverse(s.FillBytes(raw[0x2E8 : 0x2E8+72]))
	v := w.verifyRaw(t, raw)
	wantDenied(t, v, "signature")
	if !strings.Contains(v.Failed()[0].Found, "P-384") {
		t.Errorf("found %q", v.Failed()[0].Found)
	}
}

// A certificate from disk is not among those that the evidence offers: the cache must
// tell it from the one that was there before.
func TestCacheKnowsTheLeaf(t *testing.T) {
	w := newWorld(t, milan())
	w.certs = nil
	name := filepath.Join(w.dir, "vcek", w.machine.Params.ChipID, "vcek.der")
	writeFile(t, name, w.machine.VCEK.Raw)
	wantAllowed(t, w.verify(t))
	writeFile(t, name, w.forgedVCEK(t))
	wantDenied(t, w.verify(t), "chain")
	writeFile(t, name, w.machine.VCEK.Raw)
	wantAllowed(t, w.verify(t))
}

// The levels of a report: any of them may be the one that was vulnerable.
func TestLowestTCBCounts(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   int
	}{{"current", 0x38}, {"committed", 0x1E0}, {"launch", 0x1F0}} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, milan())
			w.edit = func(raw []byte) { raw[tt.at+7]-- } // microcode
			v := w.verify(t)
			wantAllowed(t, v)
			if want := (owner.TCB{Bootloader: 4, SNP: 24, Microcode: 218}); v.Facts.TCB != want {
				t.Errorf("facts have %+v, want %+v", v.Facts.TCB, want)
			}
			minimum := owner.TCB{Bootloader: 4, SNP: 24, Microcode: 219}
			w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{owner.Milan: minimum}
			wantDenied(t, w.verify(t), "tcb-minimum")
			// And at a release, after the owner raised it.
			if failed := Failed(Recheck(v.Facts, w.in.Registration)); len(failed) != 1 || failed[0].Rule != "tcb-minimum" {
				t.Errorf("recheck: %+v", failed)
			}
			w.in.Registration.SNP.MinimumTCB = nil
			wantDenied(t, w.withFloors(owner.Milan, minimum).verify(t), "tcb-floor")
		})
	}
	t.Run("each component by itself", func(t *testing.T) {
		w := newWorld(t, milan())
		w.edit = func(raw []byte) { raw[0x38]--; raw[0x1E6]--; raw[0x1F7]-- }
		v := w.verify(t)
		wantAllowed(t, v)
		if want := (owner.TCB{Bootloader: 3, SNP: 23, Microcode: 218}); v.Facts.TCB != want {
			t.Errorf("facts have %+v, want %+v", v.Facts.TCB, want)
		}
	})
}

// There is no floor for Turin, so its owner must give a minimum.
func TestTurinNeedsAMinimum(t *testing.T) {
	p := milan()
	p.Product = string(evidence.Turin)
	p.TCB.FMC = 1
	w := newWorld(t, p)
	wantAllowed(t, w.verify(t)) // behind a test root
	w.verifier.snp.chains.test.test = false
	for name, minimum := range map[string]map[string]owner.TCB{
		"none": nil, "of another line": {owner.Milan: {SNP: 1}}, "of nothing": {owner.Turin: {}},
	} {
		t.Run(name, func(t *testing.T) {
			w.in.Registration.SNP.MinimumTCB = minimum
			v := w.verify(t)
			wantDenied(t, v, "tcb-minimum")
			if wanted := v.Failed()[0].Wanted; !strings.Contains(wanted, "minimum") || !strings.Contains(wanted, owner.Turin) {
				t.Errorf("wanted %q", wanted)
			}
		})
	}
	w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{owner.Turin: {FMC: 1, SNP: 24}}
	wantAllowed(t, w.verify(t))
	w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{owner.Turin: {FMC: 2}}
	wantDenied(t, w.verify(t), "tcb-minimum")
}
