// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"github.com/casemate/casemate/agent/evidence"
)

// deadTPM answers nothing that has the form of an answer.
type deadTPM struct{ answer []byte }

func (d deadTPM) Send([]byte) ([]byte, error) { return d.answer, nil }
func (deadTPM) Close() error                  { return nil }

// A machine whose TEE is not found must not attest by something weaker unasked.
func TestTPMIsNoFallback(t *testing.T) {
	opened := false
	open := func() (transport.TPMCloser, error) { opened = true; return deadTPM{}, nil }
	// The fake's report provider is none that we know.
	if a, err := Detect(Config{TSM: (&fakeKernel{provider: "other_guest"}).client(), TPM: open}); err == nil || opened {
		t.Errorf("got %v, %v, TPM opened: %v", a, err, opened)
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
