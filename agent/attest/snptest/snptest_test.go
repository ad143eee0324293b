// SPDX-License-Identifier: Apache-2.0

package snptest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	"github.com/google/go-sev-guest/kds"
	pb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/casemate/casemate/agent/evidence"
)

func milan() Params {
	return Params{
		Measurement: strings.Repeat("17", 48), HostData: strings.Repeat("a5", 32), ChipID: strings.Repeat("c1", 64),
		TCB: TCB{Bootloader: 3, TEE: 1, SNP: 8, Microcode: 115},
	}
}

// verifyElsewhere runs Google's verifier against the signer's own root.
func verifyElsewhere(t *testing.T, s *Signer, raw []byte) error {
	t.Helper()
	report, err := abi.ReportToProto(raw)
	if err != nil {
		t.Fatal(err)
	}
	line := kds.ProductLineFromFms(report.GetCpuid1EaxFms())
	root := &trust.AMDRootCerts{ProductLine: line, ProductCerts: &trust.ProductCerts{Ark: s.ARK, Ask: s.ASK}}
	return verify.SnpAttestation(&pb.Attestation{
		Report:           report,
		CertificateChain: &pb.CertificateChain{ArkCert: s.ARK.Raw, AskCert: s.ASK.Raw, VcekCert: s.VCEK.Raw},
	}, &verify.Options{DisableCertFetching: true, TrustedRoots: map[string][]*trust.AMDRootCerts{line: {root}}})
}

func TestReportsVerifyElsewhere(t *testing.T) {
	genoa := milan()
	genoa.Product, genoa.Version = "Genoa", 5
	for name, p := range map[string]Params{"Milan": milan(), "Genoa": genoa} {
		s, err := New(p)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := s.Report([64]byte{1, 2, 3})
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyElsewhere(t, s, raw); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, at := range []int{0x50, 0x90, 0xC0, 0x180, 0x1A0, 0x2A0} {
			flipped := bytes.Clone(raw)
			flipped[at] ^= 1
			if verifyElsewhere(t, s, flipped) == nil {
				t.Errorf("%s: byte %#x does not matter", name, at)
			}
		}
		exts, err := kds.VcekCertificateExtensions(s.VCEK)
		if err != nil {
			t.Fatal(err)
		}
		if got := kds.DecomposeTCBVersion(exts.TCBVersion); got.BlSpl != 3 || got.UcodeSpl != 115 || exts.HWID[0] != 0xC1 {
			t.Errorf("%s: VCEK is for %+v, chip %x", name, got, exts.HWID)
		}
	}
}

func TestTurinReportsAndCertificates(t *testing.T) {
	p := milan()
	p.Product, p.TCB.FMC = "Turin", 2
	s, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	e, err := s.Evidence([64]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	want := evidence.SNPTCB{FMC: 2, Bootloader: 3, TEE: 1, SNP: 8, Microcode: 115}
	if e.Report.Product() != evidence.Turin || e.Report.ReportedTCB() != want {
		t.Errorf("%s with TCB %+v", e.Report.Product(), e.Report.ReportedTCB())
	}
	if got := len(s.VCEK.Extensions); got < 12 {
		t.Errorf("VCEK has %d extensions", got)
	}
}

func TestCreateAndLoad(t *testing.T) {
	dir := t.TempDir() + "/signer"
	s, err := Create(dir, milan())
	if err != nil {
		t.Fatal(err)
	}
	published, err := New(milan())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(s.ARK.RawSubjectPublicKeyInfo, published.ARK.RawSubjectPublicKeyInfo) {
		t.Error("fresh keys are the published ones")
	}
	back, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	e, err := back.Evidence([64]byte{9})
	if err != nil {
		t.Fatal(err)
	}
	if err := verifyElsewhere(t, s, e.Report.Raw()); err != nil {
		t.Error(err)
	}
	if back.Params != s.Params || e.Report.HostData()[0] != 0xa5 || e.Report.Measurement()[0] != 0x17 || e.Report.Policy().Debug() {
		t.Errorf("got %+v", back.Params)
	}
	if _, err := Create(dir, milan()); err == nil {
		t.Error("a signer was written over another")
	}
	for _, tc := range []struct{ file, content, want string }{
		{"report.toml", "measurment = ''\n", "unknown key"},
		{"report.toml", "measurement = 'aa'\n", "1 bytes, want 48"},
		{"report.toml", "product = 'Rome'\n", "unknown product"},
		{"vcek.pem", "no PEM", "not one PEM block"},
		{"vcek.key", "", "not one PEM block"},
		{"ark.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "ark.pem"},
	} {
		path := filepath.Join(dir, tc.file)
		saved, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(tc.content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s %q: got error %v, want %q", tc.file, tc.content, err, tc.want)
		}
		if err := os.WriteFile(path, saved, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
