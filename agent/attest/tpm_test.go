// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/casemate/casemate/agent/evidence"
)

// deadTPM answers nothing that has the form of an answer.
type deadTPM struct{ answer []byte }

func (d deadTPM) Send([]byte) ([]byte, error) { return d.answer, nil }
func (deadTPM) Close() error                  { return nil }

// A machine whose TEE is not found must not attest by something weaker unasked.
func TestTPMIsNoFallback(t *testing.T) {

	open := func() (transport.TPMCloser, error) { return deadTPM{}, nil }
	// The fake's report provider is none that we know.
	if a, err := Detect(Config{TSM: (&fakeKernel{provider: "other_guest"}).client(), TPM: open}); err == nil || !strings.Contains(err.Error(), "no report in a vTPM") {
		t.Errorf("got %v, %v", a, err)
	}
	a, err := Detect(Config{TEE: evidence.TPM, TPM: open})
	if err != nil || a.TEE() != evidence.TPM {
		t.Fatalf("asked for by name: %v, %v", a, err)
	}
	if _, err := Detect(Config{TEE: evidence.TPM, TPM: func() (transport.TPMCloser, error) { return nil, errors.New("busy") }}); err == nil || !strings.Contains(err.Error(), "busy") {
		t.Errorf("no TPM: %v", err)
	}
}

func TestTPMRefuses(t *testing.T) {
	a := &tpmAttester{open: func() (transport.TPMCloser, error) { return deadTPM{make([]byte, 3)}, nil }, log: slog.New(slog.DiscardHandler)}
	if _, err := a.Evidence(t.Context(), evidence.ReportData{}); !errors.Is(err, errNoReportData) {
		t.Errorf("bound to nothing: %v", err)
	}
	if _, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil {
		t.Error("evidence by a TPM that answers nonsense")
	}
	if err := a.RecordInitData(t.Context(), make([]byte, 48)); err == nil || !strings.Contains(err.Error(), "must be sha256") {
		t.Errorf("a digest of 48 bytes: %v", err)
	}
	if err := a.RecordInitData(t.Context(), make([]byte, 32)); err == nil {
		t.Error("recorded by a TPM that answers nonsense")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.RecordInitData(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

func TestTPMEventLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	a := &tpmAttester{eventLog: path, log: slog.New(slog.DiscardHandler)}
	for _, tt := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"absent", nil, ""},
		{"empty", []byte{}, ""},
		{"of the old form", make([]byte, 200), ""},
		{"over the cap", make([]byte, evidence.MaxEventLogSize+1), "more than"},
	} {
		if tt.content != nil {
			if err := os.WriteFile(path, tt.content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		log, err := a.readLog()
		if log != nil || (tt.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %d bytes, %v", tt.name, len(log), err)
		}
	}
}

// registersTPM reads its registers as zero and answers everything else with answer.
type registersTPM struct{ deadTPM }

func (r registersTPM) Send(command []byte) ([]byte, error) {
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != tpm2.TPMCCPCRRead {
		return r.answer, nil
	}
	body := append(make([]byte, 4), command[10:]...) // counter, selection
	body = binary.BigEndian.AppendUint32(body, tpmBatch)
	for range tpmBatch {
		body = append(append(body, 0, 32), make([]byte, 32)...)
	}
	header := binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, uint32(len(body)+10))
	return append(append(header, 0, 0, 0, 0), body...), nil
}

// FuzzTPMAnswers is a TPM that the host made up: whatever it answers, the guest stays up.
func FuzzTPMAnswers(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 1, 0, 0x0B, 3, 0xFF, 0, 0, 0, 0, 0, 8}, true)
	quoted := tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgRSASSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{
		Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)},
	})})
	for _, scheme := range []byte{0x14, 0x16, 0x18, 0x10, 0x05} { // RSASSA, RSAPSS, ECDSA, none, HMAC
		body := append([]byte{0, 3, 'a', 'b', 'c', 0, scheme}, quoted[2:]...)
		body = append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
		f.Add(append(body, 0, 0, 1, 0, 0), true)
	}
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0}, false)
	f.Fuzz(func(t *testing.T, body []byte, session bool) {
		header := []byte{0x80, 0x01}
		if session {
			header[1] = 2
		}
		header = binary.BigEndian.AppendUint32(header, uint32(len(body)+10))
		answer := append(append(header, 0, 0, 0, 0), body...)
		a := &tpmAttester{open: func() (transport.TPMCloser, error) { return deadTPM{answer}, nil }, log: slog.New(slog.DiscardHandler)}
		if _, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil {
			t.Error("evidence out of one answer to every question")
		}
		if err := a.RecordInitData(t.Context(), make([]byte, 32)); err == nil {
			t.Error("initdata recorded by a TPM that always says the same")
		}
		for _, ask := range []func(transport.TPM) error{
			func(tpm transport.TPM) error { _, err := readRegisters(tpm); return err },
			func(tpm transport.TPM) error { _, err := makeKey(tpm); return err },
			func(tpm transport.TPM) error {
				_, err := quote(registersTPM{tpm.(deadTPM)}, &tpmKey{}, []byte{31: 1})
				return err
			},
		} {
			_ = ask(deadTPM{answer}) // only that it returns
		}
	})
}
