// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
)

// fakeKernel imitates configfs-tsm below the library: what it answers for a request.
type fakeKernel struct {
	provider string
	outblob  func(inblob []byte) ([]byte, error)
	auxblob  []byte
	races    int // how many reads of outblob find that somebody else wrote
	requests int
	privs    []string
}

func (k *fakeKernel) client() *faketsm.ReportSubsystem {
	return &faketsm.ReportSubsystem{
		Random: rand.Reader,
		MakeEntry: func() *faketsm.ReportEntry {
			return &faketsm.ReportEntry{InAttrs: map[string]*faketsm.ReportAttributeState{"inblob": {}, "privlevel": {}}}
		},
		CheckInAttr: func(_ *faketsm.ReportEntry, attr string, contents []byte) error {
			switch {
			case attr == "privlevel" && k.provider != tdxProvider:
				k.privs = append(k.privs, string(contents))
			case attr != "inblob" || len(contents) != 64:
				return fs.ErrInvalid
			}
			return nil
		},
		ReadAttr: func(e *faketsm.ReportEntry, attr string) ([]byte, error) {
			switch attr {
			case "provider":
				return []byte(k.provider + "\n"), nil
			case "auxblob":
				return k.auxblob, nil
			case "outblob":
				k.requests++
				if k.races > 0 {
					k.races--
					e.WriteGeneration++
				}
				return k.outblob(e.InAttrs["inblob"].Value)
			}
			return nil, fs.ErrNotExist
		},
	}
}

func snpKernel(t testing.TB, p snptest.Params) (*fakeKernel, *snptest.Signer) {
	t.Helper()
	signer, err := snptest.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeKernel{provider: snpProvider, outblob: func(in []byte) ([]byte, error) {
		return signer.Report([64]byte(in))
	}}, signer
}

func mustDetect(t testing.TB, client configfsi.Client) Attester {
	t.Helper()
	a, err := Detect(Config{TSM: client, EventLog: t.TempDir() + "/none"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSNPEvidenceThroughTheKernelInterface(t *testing.T) {
	hostData := strings.Repeat("a5", 32)
	kernel, signer := snpKernel(t, snptest.Params{HostData: hostData, Measurement: strings.Repeat("17", 48)})
	kernel.auxblob = certTable(entry{guidVCEK, signer.VCEK.Raw}, entry{guidASK, signer.ASK.Raw}, entry{guidARK, signer.ARK.Raw})
	client := kernel.client()
	a := mustDetect(t, client)
	if a.TEE() != evidence.SNP {
		t.Errorf("TEE is %s", a.TEE())
	}
	data := evidence.WorkloadReportData([]byte("x"))
	text, err := a.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.ParseSNPEvidence(text)
	if err != nil {
		t.Fatal(err)
	}
	want := data.Bytes64()
	if !bytes.Equal(e.Report.ReportData(), want[:]) {
		t.Errorf("report data is %x, want %x", e.Report.ReportData(), want)
	}
	if !bytes.Equal(e.Find(evidence.SNPCertVCEK), signer.VCEK.Raw) || len(e.Certs) != 3 {
		t.Errorf("got %d certificates", len(e.Certs))
	}
	if len(kernel.privs) != 1 || kernel.privs[0] != "0" {
		t.Errorf("asked for privilege levels %q, want VMPL 0 once", kernel.privs)
	}
	bound, err := a.(InitDataReader).BoundInitData(t.Context())
	if err != nil || !bytes.Equal(bound, bytes.Repeat([]byte{0xa5}, 32)) {
		t.Errorf("HOST_DATA is %x, %v", bound, err)
	}
	if n := len(client.Entries); n != 0 {
		t.Errorf("%d entries left in configfs", n)
	}
}

func TestSNPEvidenceWithoutCertificates(t *testing.T) {
	kernel, _ := snpKernel(t, snptest.Params{})
	for name, aux := range map[string][]byte{"none": nil, "empty table": make([]byte, 4096)} {
		kernel.auxblob = aux
		text, err := mustDetect(t, kernel.client()).Evidence(t.Context(), evidence.WorkloadReportData(nil))
		if err != nil || !bytes.HasSuffix(text, []byte(`"cert_chain":null}`)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSNPEvidenceRefuses(t *testing.T) {
	good, signer := snpKernel(t, snptest.Params{})
	for _, tc := range []struct {
		name   string
		change func(k *fakeKernel)
		want   string
	}{
		{"truncated report", func(k *fakeKernel) {
			k.outblob = func([]byte) ([]byte, error) { return make([]byte, 1183), nil }
		}, "got 1183 bytes, want 1184"},
		{"report of version 6", func(k *fakeKernel) {
			k.outblob = func(in []byte) ([]byte, error) {
				raw, err := signer.Report([64]byte(in))
				raw[0] = 6
				return raw, err
			}
		}, "report version is 6"},
		{"report for another request", func(k *fakeKernel) {
			k.outblob = func([]byte) ([]byte, error) { return signer.Report([64]byte{1}) }
		}, "bound to other data"},
		{"firmware error", func(k *fakeKernel) {
			k.outblob = func([]byte) ([]byte, error) { return nil, errors.New("fw error 7") }
		}, "fw error 7"},
		{"short certificate table", func(k *fakeKernel) { k.auxblob = []byte{1} }, "certificate table of the host"},
		{"two VCEKs", func(k *fakeKernel) {
			k.auxblob = certTable(entry{guidVCEK, []byte{1}}, entry{guidVCEK, []byte{2}})
		}, "two certificates of type VCEK"},
		{"lasting race", func(k *fakeKernel) { k.races = 100 }, "raced 3 times"},
	} {
		kernel := *good
		a := mustDetect(t, kernel.client())
		tc.change(&kernel)
		_, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got error %v, want %q", tc.name, err, tc.want)
		}
		if kernel.requests > maxRaces {
			t.Errorf("%s: %d reports made, at most %d wanted", tc.name, kernel.requests, maxRaces)
		}
	}
	if _, err := mustDetect(t, good.client()).Evidence(t.Context(), evidence.ReportData{}); !errors.Is(err, errNoReportData) {
		t.Errorf("evidence bound to nothing: %v", err)
	}
}

func TestOneRaceIsRetried(t *testing.T) {
	kernel, _ := snpKernel(t, snptest.Params{})
	client := kernel.client()
	a := mustDetect(t, client)
	kernel.races = 1
	if _, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err != nil {
		t.Fatal(err)
	}
	if kernel.requests != 2 {
		t.Errorf("%d reports made, want 2", kernel.requests)
	}
	if n := len(client.Entries); n != 0 {
		t.Errorf("%d entries left in configfs", n)
	}
}

func TestAnotherProviderAnswers(t *testing.T) {
	kernel, _ := snpKernel(t, snptest.Params{})
	a := mustDetect(t, kernel.client())
	kernel.provider = "arm_cca_guest"
	_, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil))
	if err == nil || !strings.Contains(err.Error(), `provider "arm_cca_guest" answered`) {
		t.Errorf("report of another provider: %v", err)
	}
}

func TestEvidenceEndsWithItsContext(t *testing.T) {
	kernel, _ := snpKernel(t, snptest.Params{})
	a := mustDetect(t, kernel.client())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Evidence(ctx, evidence.WorkloadReportData(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if kernel.requests != 0 {
		t.Error("made a report nobody waits for")
	}
}

func TestDetectRefuses(t *testing.T) {
	snp, _ := snpKernel(t, snptest.Params{})
	for _, tc := range []struct {
		name string
		cfg  Config
		want []string
	}{
		{"unknown provider", Config{TSM: (&fakeKernel{provider: "arm_cca_guest"}).client()}, []string{"arm_cca_guest", snpProvider, tdxProvider}},
		{"hostile provider", Config{TSM: (&fakeKernel{provider: "\x1b[2J" + strings.Repeat("x", 999)}).client()}, []string{`\x1b[2J`}},
		{"other TEE than configured", Config{TSM: snp.client(), TEE: evidence.TDX}, []string{"found snp", "tdx"}},
		{"TEE without an attester", Config{TSM: snp.client(), TEE: evidence.CCA}, []string{"found snp", "cca"}},
	} {
		a, err := Detect(tc.cfg)
		if err == nil {
			t.Errorf("%s: detected %s", tc.name, a.TEE())
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got error %v, want %q", tc.name, err, want)
			}
		}
		if len(err.Error()) > 500 {
			t.Errorf("%s: error of %d bytes", tc.name, len(err.Error()))
		}
	}
}

func TestNoFallbackOnAMachineWithoutTEE(t *testing.T) {
	a, err := Detect(Config{})
	if err == nil {
		t.Skipf("this machine has a TEE: %s", a.TEE())
	}
	for _, want := range []string{reportSubsystem, "/dev/sev-guest", "/dev/tdx_guest"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not name %s: %v", want, err)
		}
	}
}
