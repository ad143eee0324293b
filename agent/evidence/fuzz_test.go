// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"testing"

	"github.com/google/go-sev-guest/verify/testdata"
)

func encodeHex(b []byte) string { return hex.EncodeToString(b) }

// FuzzSNPReportRoundTrip: a raw report is refused or survives the JSON form unchanged.
func FuzzSNPReportRoundTrip(f *testing.F) {
	f.Add(testdata.AttestationBytes)
	for _, v := range []uint32{2, 3, 4, 5} {
		f.Add(fullReport(v, 0x19, 0x01))
		f.Add(fullReport(v, 0x19, 0x11))
		f.Add(fullReport(v, 0x1A, 0x02))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := ParseSNPReport(raw)
		if err != nil {
			return
		}
		text, err := SNPEvidence{Report: r}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseSNPEvidence(text)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.Report.Raw(), raw) {
			t.Fatalf("report changed on its way through JSON:\n%x\n%x", raw, back.Report.Raw())
		}
	})
}

// FuzzParseSNPEvidence: evidence is refused or its encoding parses to itself.
func FuzzParseSNPEvidence(f *testing.F) {
	for _, v := range []uint32{2, 3, 5} {
		r := mustSNP(f, fullReport(v, 0x19, 0x01))
		text, err := SNPEvidence{Report: r, Certs: []SNPCert{{Type: SNPCertVCEK, DER: []byte{1}}}}.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		e, err := ParseSNPEvidence(text)
		if err != nil {
			return
		}
		again, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseSNPEvidence(again)
		if err != nil || !bytes.Equal(back.Report.Raw(), e.Report.Raw()) {
			t.Fatalf("second parse: %v", err)
		}
	})
}

// FuzzParseJWK: a key has one spelling, up to order and white space.
func FuzzParseJWK(f *testing.F) {
	f.Add([]byte(rfc7517Key))
	_, rsaKey := newRSAKey(f)
	f.Add(rsaKey.Canonical())
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ParseJWK(text)
		if err != nil {
			return
		}
		back, err := ParseJWK(key.Canonical())
		if err != nil || !back.Equal(key) {
			t.Fatalf("canonical form %s: %v", key.Canonical(), err)
		}
	})
}

// FuzzParseAttestation: what is hashed is what would be sent.
func FuzzParseAttestation(f *testing.F) {
	d := mustRuntimeData(f, nonceVector, mustJWK(f, rfc7517Key), "x")
	text, err := Attestation{InitData: []byte("version"), RuntimeData: d, Evidence: []byte(`{"svn":"1"}`)}.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		a, err := ParseAttestation(text)
		if err != nil {
			return
		}
		again, err := a.Encode()
		if err != nil {
			return // larger than the cap once it is escaped
		}
		back, err := ParseAttestation(again)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(back.RuntimeData.Bound(), a.RuntimeData.Bound()) || !bytes.Equal(back.InitData, a.InitData) {
			t.Fatal("the second parse binds other bytes")
		}
	})
}

// FuzzParseJWE: members have one spelling, so parsing and printing is the identity up
// to order and white space.
func FuzzParseJWE(f *testing.F) {
	_, key := newECKey(f, ecdh.P256())
	j, err := SealJWE(key, []byte("secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(j.Encode())
	f.Fuzz(func(t *testing.T, text []byte) {
		j, err := ParseJWE(text)
		if err != nil {
			return
		}
		if _, err := j.Header(); err != nil {
			return
		}
		back, err := ParseJWE(j.Encode())
		if err != nil || back.Protected != j.Protected || !bytes.Equal(back.Ciphertext, j.Ciphertext) {
			t.Fatalf("second parse: %v", err)
		}
	})
}

// FuzzParseBodies feeds the small parsers, which must not panic.
func FuzzParseBodies(f *testing.F) {
	f.Add(Request{TEE: SNP, Hashes: SupportedHashes()}.Encode())
	f.Add([]byte(`{"nonce":"n","extra-params":{"selected-hash-algorithm":"sha512"}}`))
	f.Add([]byte(`{"token":"e30.e30.e30"}`))
	f.Add([]byte(`{"type":"t","detail":"d"}`))
	f.Add([]byte(`{"cc_eventlog":"AA==","quote":"BAA="}`))
	f.Add([]byte(`{"svn":"1","report_data":"AA=="}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if q, err := ParseRequest(text); err == nil {
			if _, err := ParseRequest(q.Encode()); err != nil && len(q.Hashes) > 0 {
				t.Fatal(err)
			}
		}
		if c, err := ParseChallenge(text); err == nil {
			again, err := c.Encode()
			if back, perr := ParseChallenge(again); err != nil || perr != nil || back != c {
				t.Fatal(err, perr)
			}
		}
		ParseToken(text)
		ParseErrorInformation(text)
		if e, err := ParseTDXEvidence(text); err == nil {
			if _, err := e.Encode(); err != nil {
				t.Fatal(err)
			}
		}
		ParseSampleEvidence(text)
	})
}
