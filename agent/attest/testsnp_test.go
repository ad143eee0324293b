// SPDX-License-Identifier: Apache-2.0

//go:build testsnp && sample

package attest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
)

func TestTestSignerFromADirectory(t *testing.T) {
	dir := t.TempDir() + "/signer"
	signer, err := snptest.Create(dir, snptest.Params{HostData: strings.Repeat("a5", 32)})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a, err := Detect(Config{TestSignerDir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "TEST SIGNER") {
		t.Errorf("started without saying so: %q", log.String())
	}
	data := evidence.WorkloadReportData(nil)
	text, err := a.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.ParseSNPEvidence(text)
	if err != nil {
		t.Fatal(err)
	}
	want := data.Bytes64()
	if !bytes.Equal(e.Report.ReportData(), want[:]) || !bytes.Equal(e.Find(evidence.SNPCertARK), signer.ARK.Raw) || a.TEE() != evidence.SNP {
		t.Errorf("got %+v", e)
	}
	bound, err := a.(InitDataReader).BoundInitData(t.Context())
	if err != nil || !bytes.Equal(bound, bytes.Repeat([]byte{0xa5}, 32)) {
		t.Errorf("HOST_DATA is %x, %v", bound, err)
	}
	if _, err := a.Evidence(t.Context(), evidence.ReportData{}); err == nil {
		t.Error("made evidence bound to nothing")
	}
	if _, err := Detect(Config{TestSignerDir: t.TempDir()}); err == nil {
		t.Error("loaded an empty directory")
	}
}

func TestSampleSaysWhatItIs(t *testing.T) {
	var log bytes.Buffer
	a, err := Detect(Config{TEE: evidence.Sample, Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "SAMPLE TEE") {
		t.Errorf("started without saying so: %q", log.String())
	}
	data := evidence.WorkloadReportData(nil)
	text, err := a.Evidence(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := evidence.ParseSampleEvidence(text); err != nil || !bytes.Equal(e.ReportData, data.Digest()) || e.SVN != "1" {
		t.Errorf("got %+v, %v", e, err)
	}
	if _, ok := a.(InitDataReader); ok {
		t.Error("the sample TEE claims to keep an initdata digest")
	}
	if _, err := a.Evidence(t.Context(), evidence.ReportData{}); err == nil {
		t.Error("made evidence bound to nothing")
	}
}
