// SPDX-License-Identifier: Apache-2.0

package verifier

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	sev "github.com/google/go-sev-guest/testing"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/testdata"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
)

type violation struct {
	rule string
	name string
	do   func(t *testing.T, w *world)
}

// violations has a row for each rule: evidence or a registration that is right in all
// but this.
var violations = []violation{
	{"format", "a report of a processor that nobody knows", func(t *testing.T, w *world) {
		w.rewrite = func(text string) string { return strings.Replace(text, `"cpuid_fam_id":25`, `"cpuid_fam_id":24`, 1) }
	}},
	{"signature", "a byte changed later", func(t *testing.T, w *world) { w.forge = func(raw []byte) { raw[0x04] ^= 1 } }},
	{"signing-key", "the provider's key called the chip's", func(t *testing.T, w *world) {
		w.withVLEK(t, evidence.SNPCertVCEK)
		w.forge = func(raw []byte) { signVLEK(t, raw) }
	}},
	{"report-version", "version 2", func(t *testing.T, w *world) {
		w.edit = func(raw []byte) {
			binary.LittleEndian.PutUint32(raw, 2)
			clear(raw[0x188:0x18B])
		}
	}},
	{"signature-algorithm", "an algorithm that is not defined", func(t *testing.T, w *world) {
		w.edit = func(raw []byte) { raw[0x34] = 2 }
	}},
	{"endorsement-key", "no certificate anywhere", func(t *testing.T, w *world) { w.certs = nil }},
	{"endorsement-key", "a report that was not signed", func(t *testing.T, w *world) {
		w.edit = func(raw []byte) { raw[0x48] = 7 << 2 }
	}},
	{"endorsement-key", "the ASK as VCEK", func(t *testing.T, w *world) {
		w.certs = []evidence.SNPCert{{Type: evidence.SNPCertVCEK, DER: w.machine.ASK.Raw}}
	}},
	{"endorsement-key", "garbage as VCEK", func(t *testing.T, w *world) {
		w.certs = []evidence.SNPCert{{Type: evidence.SNPCertVCEK, DER: []byte{0x30, 0x80}}}
	}},
	{"endorsement-key", "named as VLEK without one", func(t *testing.T, w *world) {
		w.edit = func(raw []byte) { raw[0x48] = 1 << 2 }
	}},
	{"chain", "a machine that nobody vouches for", func(t *testing.T, w *world) {
		v, err := New(Config{Collateral: w.dir})
		if err != nil {
			t.Fatal(err)
		}
		w.verifier = v
	}},
	{"chain", "a VCEK in the intermediate's name by another key", func(t *testing.T, w *world) {
		w.certs = []evidence.SNPCert{{Type: evidence.SNPCertVCEK, DER: w.forgedVCEK(t)}}
	}},
	{"chain", "an offered ASK in the root's name by another key", func(t *testing.T, w *world) {
		key := sev.DefaultAsvk()
		ask := reissue(t, w.machine.ASK, w.machine.ARK, key.Public(), key)
		w.certs = []evidence.SNPCert{
			{Type: evidence.SNPCertASK, DER: ask.Raw},
			{Type: evidence.SNPCertVCEK, DER: reissue(t, w.machine.VCEK, ask, w.machine.VCEK.PublicKey, key).Raw},
		}
	}},
	{"validity", "before the certificates", func(t *testing.T, w *world) { w.in.Now = w.in.Now.AddDate(-1, 0, 0); w.acceptMissingCRL() }},
	{"validity", "after the VCEK", func(t *testing.T, w *world) { w.in.Now = w.in.Now.AddDate(8, 0, 0); w.acceptMissingCRL() }},
	{"revocation", "no list", func(t *testing.T, w *world) { w.dir = t.TempDir(); w.open(t) }},
	{"revocation", "a list past its next update", func(t *testing.T, w *world) {
		w.writeCRL(t, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
		w.open(t)
	}},
	{"revocation", "a list of the future", func(t *testing.T, w *world) {
		w.writeCRL(t, time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))
		w.open(t)
	}},
	{"revocation", "a list in the root's name by another key", func(t *testing.T, w *world) {
		w.writeCRLBy(t, sev.DefaultAsk(), time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		w.open(t)
	}},
	{"revocation", "the ASK is listed, even when missing lists are taken", func(t *testing.T, w *world) {
		w.writeCRL(t, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour), w.machine.ASK)
		w.open(t)
		w.acceptMissingCRL()
	}},
	{"revocation", "a provider's key, and AMD's list about chips' keys alone", func(t *testing.T, w *world) {
		chain := w.withVLEK(t, evidence.SNPCertVLEK)
		w.in.Registration.SNP.AcceptMissingCRL = false
		w.machine.ARK = chain.Ark
		w.writeCRL(t, time.Now().Add(-time.Minute), time.Now().Add(time.Hour))
		var err error
		if w.verifier, err = New(Config{SNPTestRoots: slices.Concat(toPEM(chain.Ark), toPEM(chain.Asvk)), Collateral: w.dir, KDS: AMDKDS}); err != nil {
			t.Fatal(err)
		}
		w.edit = func(raw []byte) { raw[0x48] = 1 << 2 }
		w.forge = func(raw []byte) { signVLEK(t, raw) }
	}},
	{"tcb-certified", "a key of older firmware", func(t *testing.T, w *world) {
		w.edit = func(raw []byte) { raw[0x186]++ }
	}},
	{"chip-certified", "a key of another chip", func(t *testing.T, w *world) {
		w.edit = func(raw []byte) { raw[0x1A0] ^= 1 }
	}},
	{"vmpl", "VMPL 1", func(t *testing.T, w *world) { w.edit = func(raw []byte) { raw[0x30] = 1 } }},
	{"vmpl", "VMPL 3", func(t *testing.T, w *world) { w.edit = func(raw []byte) { raw[0x30] = 3 } }},
	{"debug", "debugging allowed", func(t *testing.T, w *world) { w.edit = func(raw []byte) { raw[0x0A] |= 1 << 3 } }},
	{"migration", "migration agent allowed", func(t *testing.T, w *world) { w.edit = func(raw []byte) { raw[0x0A] |= 1 << 2 } }},
	{"report-data", "bound to another handshake", func(t *testing.T, w *world) {
		other := reportData(t).Bytes64()
		w.edit = func(raw []byte) { copy(raw[0x50:], other[:]) }
	}},
	{"report-data", "evidence made for a workload", func(t *testing.T, w *world) {
		data := evidence.WorkloadReportData(w.in.ReportData.Digest()).Bytes64()
		w.edit = func(raw []byte) { copy(raw[0x50:], data[:]) }
	}},
	{"report-data", "bound to nothing", func(t *testing.T, w *world) {
		w.in.ReportData = evidence.ReportData{} // and with it the report's
	}},
	{"host-data", "zero host data", func(t *testing.T, w *world) { w.machine.Params.HostData = "" }},
	{"host-data", "launched with other initdata", func(t *testing.T, w *world) { w.machine.Params.HostData = strings.Repeat("22", 32) }},
	{"tcb-floor", "firmware with known holes", func(t *testing.T, w *world) {
		w.verifier.snp.chains.test.test = false
		w.verifier.snp.floors[owner.Milan] = owner.TCB{SNP: 25}
	}},
	{"tcb-floor", "launched on firmware with known holes", func(t *testing.T, w *world) {
		w.verifier.snp.chains.test.test = false
		w.verifier.snp.floors[owner.Milan] = owner.TCB{SNP: 24}
		w.edit = func(raw []byte) { raw[0x1F6]-- }
	}},
	{"devices", "a device that did not come along", func(_ *testing.T, w *world) {
		w.in.Registration.Devices = []evidence.TEE{evidence.TPM}
	}},
	{"tee-listed", "a TEE the workload does not take", func(t *testing.T, w *world) {
		w.in.Registration.TEEs = []evidence.TEE{evidence.Sample}
	}},
	{"initdata-listed", "initdata that was not registered", func(t *testing.T, w *world) {
		w.in.Registration.InitData = []string{"sha256:" + strings.Repeat("11", 32)}
	}},
	{"measurement", "another measurement", func(t *testing.T, w *world) {
		w.machine.Params.Measurement = strings.Repeat("ba", 48)
	}},
	{"tcb-minimum", "under the workload's minimum", func(t *testing.T, w *world) {
		w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{owner.Milan: {Microcode: 220}}
	}},
	{"tcb-minimum", "launched under the workload's minimum", func(t *testing.T, w *world) {
		w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{owner.Milan: {Microcode: 219}}
		w.edit = func(raw []byte) { raw[0x1F7]-- }
	}},
	{"tcb-minimum", "a product line without a minimum", func(t *testing.T, w *world) {
		w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{owner.Genoa: {}}
	}},
	{"test-root", "a test root for a workload that takes none", func(t *testing.T, w *world) { w.in.Registration.TestRoots = false }},
	{"debug-guest", "initdata of a debug guest", func(t *testing.T, w *world) { w.in.Debug = true }},
	{"debug-guest", "the measurement of a debug image", func(t *testing.T, w *world) { w.in.Registration.SNP.Debug = true }},
}

func (w *world) acceptMissingCRL() { w.in.Registration.SNP.AcceptMissingCRL = true }

func TestEachRuleDeniesAlone(t *testing.T) {
	for _, tt := range violations {
		t.Run(tt.rule+"/"+tt.name, func(t *testing.T) {
			w := newWorld(t, milan())
			wantAllowed(t, w.verify(t))
			tt.do(t, w)
			wantDenied(t, w.verify(t), tt.rule)
		})
	}
}

// withVLEK makes the machine one of a provider: its root is the builder's own, which
// also certifies a VLEK, and reports are signed by that.
func (w *world) withVLEK(t *testing.T, label evidence.SNPCertType) *sev.AmdSigner {
	t.Helper()
	parts := kds.TCBParts{BlSpl: 4, SnpSpl: 24, UcodeSpl: 219}
	since := time.Now().Add(-time.Hour)
	b := sev.AmdSignerBuilder{
		ProductName: "Milan-B0", ArkCreationTime: since, AskCreationTime: since, AsvkCreationTime: since, VcekCreationTime: since, VlekCreationTime: since,
		VlekCustom: sev.CertOverride{Extensions: sev.CustomExtensions(parts, nil, "a provider", "Milan")},
	}
	chain, err := b.TestOnlyCertChain()
	if err != nil {
		t.Fatal(err)
	}
	if w.verifier, err = New(Config{SNPTestRoots: slices.Concat(toPEM(chain.Ark), toPEM(chain.Asvk))}); err != nil {
		t.Fatal(err)
	}
	w.acceptMissingCRL()
	w.certs = []evidence.SNPCert{{Type: label, DER: chain.Vlek.Raw}}
	return chain
}

// signVLEK replaces the signature of a report.
func signVLEK(t *testing.T, raw []byte) {
	t.Helper()
	digest := sha512.Sum384(raw[:evidence.SNPSignedSize])
	r, s, err := ecdsa.Sign(rand.Reader, sev.DefaultVlek(), digest[:])
	if err != nil {
		t.Fatal(err)
	}
	slices.Reverse(r.FillBytes(raw[0x2A0 : 0x2A0+72]))
	slices.Reverse(s.FillBytes(raw[0x2E8 : 0x2E8+72]))
}

// A serial number says something only among the certificates of the list's issuer.
func TestSerialNumberOfAnotherIssuer(t *testing.T) {
	w := newWorld(t, milan())
	w.writeCRL(t, time.Now().Add(-time.Minute), time.Now().Add(time.Hour), w.machine.VCEK)
	w.open(t)
	wantAllowed(t, w.verify(t))
}

// Whose list it is is found out once, and then remembered for that root alone.
func TestRevocationListOfOneRoot(t *testing.T) {
	w := newWorld(t, milan())
	c := w.verifier.snp.collateral
	if c.revocations(w.machine.ARK) == nil {
		t.Fatal("the root's own list is not found")
	}
	p := milan()
	p.Product = string(evidence.Genoa)
	if c.revocations(machine(t, p).ARK) != nil {
		t.Fatal("another root's list is found")
	}
}

func TestFlippedByte(t *testing.T) {
	w := newWorld(t, milan())
	good := w.report(t)
	wantAllowed(t, w.verifyRaw(t, good))
	onlySignature := 0
	for at := range evidence.SNPSignedSize {
		raw := slices.Clone(good)
		raw[at] ^= 0x01
		ev, err := encode(raw, w.certs)
		if err != nil {
			continue // reserved, version or processor: the evidence cannot even be written
		}
		w.in.Evidence = ev
		v := w.verifier.Verify(w.in)
		if v.Allowed() {
			t.Fatalf("byte %#x flipped, and allowed", at)
		}
		if failed := v.Failed(); len(failed) == 1 && failed[0].Rule == "signature" {
			onlySignature++
		}
	}
	// Family id, image id, ids, digests and unused bits: only the signature tells.
	if onlySignature < 100 {
		t.Errorf("the signature alone denied %d flipped bytes, want over 100", onlySignature)
	}
}

func TestFlippedSignature(t *testing.T) {
	w := newWorld(t, milan())
	good := w.report(t)
	for at := 0x2A0; at < 0x330; at++ {
		raw := slices.Clone(good)
		raw[at] ^= 0x01
		wantDenied(t, w.verifyRaw(t, raw), "signature")
	}
	zero := slices.Clone(good)
	clear(zero[0x2A0:])
	wantDenied(t, w.verifyRaw(t, zero), "signature")
}

func TestProducts(t *testing.T) {
	for _, tt := range []struct {
		name    string
		product evidence.SNPProduct
		model   byte
		tcb     snptest.TCB
		line    string
	}{
		{"Milan", evidence.Milan, 0x01, snptest.TCB{Bootloader: 4, SNP: 24, Microcode: 219}, owner.Milan},
		{"Genoa", evidence.Genoa, 0x11, snptest.TCB{Bootloader: 10, SNP: 23, Microcode: 84}, owner.Genoa},
		{"Siena", evidence.Genoa, 0xA0, snptest.TCB{Bootloader: 10, SNP: 23, Microcode: 24}, owner.Genoa},
		{"Turin", evidence.Turin, 0x02, snptest.TCB{FMC: 1, Bootloader: 1, TEE: 1, SNP: 4, Microcode: 80}, owner.Turin},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := milan()
			p.Product, p.TCB = string(tt.product), tt.tcb
			w := newWorld(t, p)
			w.edit = func(raw []byte) { raw[0x189] = tt.model }
			v := w.verify(t)
			wantAllowed(t, v)
			tcb := owner.TCB(tt.tcb)
			if v.Facts.Product != tt.line || v.Facts.TCB != tcb {
				t.Errorf("facts %+v, want %s with %+v", v.Facts, tt.line, tcb)
			}
			w.in.Registration.SNP.MinimumTCB = map[string]owner.TCB{tt.line: tcb}
			wantAllowed(t, w.withFloors(tt.line, tcb).verify(t))
			tcb.Microcode++
			wantDenied(t, w.withFloors(tt.line, tcb).verify(t), "tcb-floor")
		})
	}
}

// withFloors judges the machine as if AMD vouched for it.
func (w *world) withFloors(line string, floor owner.TCB) *world {
	w.verifier.snp.chains.test.test = false
	w.verifier.snp.floors = map[string]owner.TCB{line: floor}
	return w
}

func TestTurinChip(t *testing.T) {
	p := milan()
	p.Product, p.TCB = string(evidence.Turin), snptest.TCB{FMC: 1, Bootloader: 1, SNP: 4, Microcode: 80}
	w := newWorld(t, p)
	w.edit = func(raw []byte) { raw[0x1A7] ^= 1 } // the last of the 8 bytes that Turin uses
	wantDenied(t, w.verify(t), "chip-certified")
	w.edit = func(raw []byte) { raw[0x180]++ } // FMC
	wantDenied(t, w.verify(t), "tcb-certified")
}

func TestReportVersions(t *testing.T) {
	for _, version := range []uint32{3, 4, 5} {
		w := newWorld(t, milan())
		w.edit = func(raw []byte) { binary.LittleEndian.PutUint32(raw, version) }
		wantAllowed(t, w.verify(t))
	}
}

func TestVLEK(t *testing.T) {
	w := newWorld(t, milan())
	w.withVLEK(t, evidence.SNPCertVLEK)
	w.edit = func(raw []byte) { raw[0x48] = 1 << 2 }
	raw := w.report(t)
	// The chip's own key cannot pass for the provider's.
	wantDenied(t, w.verifyRaw(t, raw), "signature")
	signVLEK(t, raw)
	wantAllowed(t, w.verifyRaw(t, raw))
}

func TestVCEKFromDisk(t *testing.T) {
	w := newWorld(t, milan())
	der := w.certs[2].DER
	w.certs = nil
	chip := w.machine.Params.ChipID
	for _, name := range []string{"vcek.der", "bl04_tee00_snp24_ucode219_vcek.der"} {
		t.Run(name, func(t *testing.T) {
			w.dir = t.TempDir()
			w.open(t)
			w.acceptMissingCRL()
			wantDenied(t, w.verify(t), "endorsement-key")
			writeFile(t, filepath.Join(w.dir, "vcek", chip, name), der)
			wantAllowed(t, w.verify(t))
			writeFile(t, filepath.Join(w.dir, "vcek", chip, name), make([]byte, evidence.MaxSNPCertSize+1))
			wantDenied(t, w.verify(t), "endorsement-key")
		})
	}
}

// An ASK that the evidence brings is taken only when the root signed it.
func TestOfferedIntermediate(t *testing.T) {
	w := newWorld(t, milan())
	w.verifier.snp.chains.test.intermediates = nil
	wantAllowed(t, w.verify(t))

	w = newWorld(t, milan())
	w.verifier.snp.chains.test.intermediates = nil
	p := milan()
	p.Product = string(evidence.Genoa)
	w.certs[1].DER = machine(t, p).ASK.Raw // of another root
	wantDenied(t, w.verify(t), "chain")
}

func TestMalformedEvidence(t *testing.T) {
	w := newWorld(t, milan())
	wantAllowed(t, w.verify(t))
	good := string(w.in.Evidence)
	for _, tt := range []struct{ name, text string }{
		{"empty object", `{}`},
		{"not an object", `[]`},
		{"truncated", good[:len(good)/2]},
		{"report is null", `{"attestation_report":null,"cert_chain":null}`},
		{"a member twice", strings.Replace(good, `"vmpl":0`, `"vmpl":0,"vmpl":0`, 1)},
		{"a member twice, in another case", strings.Replace(good, `"vmpl":0`, `"vmpl":0,"VMPL":0`, 1)},
		{"an unknown member", strings.Replace(good, `{"attestation_report"`, `{"x":1,"attestation_report"`, 1)},
		{"a missing member", strings.Replace(good, `"vmpl":0,`, ``, 1)},
		{"version 1", strings.Replace(good, `"version":3`, `"version":1`, 1)},
		{"version 6", strings.Replace(good, `"version":3`, `"version":6`, 1)},
		{"unknown processor", strings.Replace(good, `"cpuid_fam_id":25`, `"cpuid_fam_id":26`, 1)},
		{"over its cap", `{"attestation_report":` + strings.Repeat(" ", evidence.MaxSNPEvidenceSize) + `{}}`},
		{"measurement too short", strings.Replace(good, `"measurement":[171,`, `"measurement":[`, 1)},
		{"measurement too long", strings.Replace(good, `"measurement":[`, `"measurement":[171,`, 1)},
		{"a number over its field", strings.Replace(good, `"vmpl":0`, `"vmpl":4294967296`, 1)},
		{"a fraction", strings.Replace(good, `"vmpl":0`, `"vmpl":0.0`, 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.text == good {
				t.Fatal("the case changes nothing")
			}
			w.in.Evidence = []byte(tt.text)
			wantDenied(t, w.verifier.Verify(w.in), "format")
		})
	}
}

// A table that lost its rows must not allow.
func TestEmptyTableDenies(t *testing.T) {
	if (Verdict{}).Allowed() || (Verdict{complete: true}).Allowed() || (Verdict{Findings: []Finding{{OK: true}}}).Allowed() {
		t.Fatal("a verdict without judged rows allows")
	}
}

// The recorded report of a real Milan machine: AMD's own roots and signature hold, and
// what denies it is its age and that it was made for nobody here.
func TestRecordedMilanReport(t *testing.T) {
	report, err := evidence.ParseSNPReport(testdata.AttestationBytes[:evidence.SNPReportSize])
	if err != nil {
		t.Fatal(err)
	}
	ev, err := evidence.SNPEvidence{Report: report, Certs: []evidence.SNPCert{{Type: evidence.SNPCertVCEK, DER: testdata.VcekBytes}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	v, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{TEE: evidence.SNP, Evidence: ev, Now: time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC), Registration: owner.Registration{
		TEEs: []evidence.TEE{evidence.SNP}, SNP: &owner.SNPReference{Measurements: []string{fmt.Sprintf("%x", report.Measurement())}, AcceptMissingCRL: true},
	}}
	verdict := v.Verify(in)
	wantDenied(t, verdict, "report-version", "debug", "report-data", "host-data", "tcb-floor", "initdata-listed")
	for _, f := range verdict.Findings {
		if f.Rule == "chain" && f.Found != "ARK-Milan" {
			t.Errorf("chain found %q", f.Found)
		}
	}
}

// The library that made the vectors agrees about every signature.
func TestSignatureAgainstLibrary(t *testing.T) {
	cert, err := x509.ParseCertificate(testdata.VcekBytes)
	if err != nil {
		t.Fatal(err)
	}
	for at := range 8 {
		raw := slices.Clone(testdata.AttestationBytes[:abi.ReportSize])
		if at > 0 {
			raw[0x90+at] ^= 0x80
		}
		report, err := evidence.ParseSNPReport(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, _, ours := checkSignature(&snpCase{report: &report, vek: vek{cert: cert}})
		theirs := verify.SnpReportSignature(raw, cert) == nil
		if ours != theirs || ours != (at == 0) {
			t.Errorf("flip %d: ours %v, library %v", at, ours, theirs)
		}
	}
}

func TestRootFiles(t *testing.T) {
	p := milan()
	p.Product = string(evidence.Genoa)
	m, other := machine(t, milan()), machine(t, p)
	ark, ask := string(toPEM(m.ARK)), string(toPEM(m.ASK))
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "no self-signed"},
		{"not PEM", "hello", "not PEM"},
		{"only an intermediate", ask, "no self-signed"},
		{"two roots", ark + ask + string(toPEM(other.ARK)), "two self-signed"},
		{"an intermediate of another root", ark + string(toPEM(other.ASK)), "intermediate"},
		{"a private key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "want CERTIFICATE"},
		{"too large", strings.Repeat("\n", MaxTestRoots+1), "at most"},
	} {
		if _, err := New(Config{SNPTestRoots: []byte(tt.text)}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if _, err := New(Config{Collateral: filepath.Join(t.TempDir(), "absent")}); err == nil {
		t.Error("an absent collateral directory is taken")
	}
}

func FuzzVerifySNP(f *testing.F) {
	w := newWorld(f, milan())
	wantAllowed(f, w.verify(f))
	good := slices.Clone(w.in.Evidence)
	f.Add([]byte(good))
	f.Add([]byte(`{}`))
	same := asJSON(f, good)["attestation_report"]
	f.Fuzz(func(t *testing.T, raw []byte) {
		in := w.in
		in.Evidence = raw
		v := w.verifier.Verify(in)
		if !v.Allowed() {
			return
		}
		// The JSON may be spelled otherwise; what it says must be what was signed.
		if fmt.Sprint(asJSON(t, raw)["attestation_report"]) != fmt.Sprint(same) {
			t.Fatalf("allowed another report: %s", raw)
		}
	})
}

// BenchmarkVerifySNP is the whole judgement of one piece of evidence with its chain
// known, on one core.
func BenchmarkVerifySNP(b *testing.B) {
	w := newWorld(b, milan())
	wantAllowed(b, w.verify(b))
	for b.Loop() {
		if !w.verifier.Verify(w.in).Allowed() {
			b.Fatal("denied")
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "evidence/s")
}
