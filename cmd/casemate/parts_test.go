// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// TestMain lets this test program be a container's first process too.
func TestMain(m *testing.M) {
	container.Init()
	if code, done := beBare(); done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// chip is a TEE whose report carries a fixed HOST_DATA.
type chip struct {
	hostData []byte
	err      error
}

func (chip) TEE() evidence.TEE { return evidence.SNP }

func (chip) Evidence(context.Context, evidence.ReportData) (json.RawMessage, error) {
	return nil, errors.New("not asked for here")
}

func (c chip) BoundInitData(context.Context) ([]byte, error) { return c.hostData, c.err }

func TestInitDataIsBound(t *testing.T) {
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{"casemate.toml": "workload = \"a\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	edited := append([]byte("# looser\n"), raw...)
	zeros := make([]byte, initdata.HostDataSize)
	for _, tt := range []struct {
		name    string
		file    []byte // nil: none is configured
		chip    chip
		wantErr string
	}{
		{name: "the digest is in the report", file: raw, chip: chip{hostData: d.Digest()}},
		{name: "no initdata and none in the report", chip: chip{hostData: zeros}},
		{name: "initdata taken away by the host", chip: chip{hostData: d.Digest()}, wantErr: "no file is configured and no disk has it"},
		{name: "initdata edited by the host", file: edited, chip: chip{hostData: d.Digest()}, wantErr: "initdata"},
		{name: "a launch without HOST_DATA", file: raw, chip: chip{hostData: zeros}, wantErr: "initdata"},
		{name: "no report to be had", file: raw, chip: chip{err: errors.New("firmware is silent")}, wantErr: "firmware is silent"},
		{name: "over its cap", file: make([]byte, initdata.MaxSize+1), chip: chip{hostData: d.Digest()}, wantErr: "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := &machine{attester: tt.chip, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
			if tt.file != nil {
				m.conf.InitData = filepath.Join(t.TempDir(), "initdata.toml")
				if err := os.WriteFile(m.conf.InitData, tt.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			err := m.bindInitData(t.Context())
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("got %v, want an error with %q", err, tt.wantErr)
				}
				if m.initdata != nil || m.conf.Workload != "" {
					t.Fatalf("refused initdata was taken over: %+v", m.conf)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if tt.file != nil && (string(m.initdata) != string(tt.file) || m.conf.Workload != "a") {
				t.Fatalf("got %q and %+v", m.initdata, m.conf)
			}
		})
	}
}

// pcr is a machine whose initdata goes into a register that the guest extends.
type pcr struct {
	asked [][]byte
	err   error
}

func (*pcr) TEE() evidence.TEE { return evidence.TPM }

func (*pcr) Evidence(context.Context, evidence.ReportData) (json.RawMessage, error) {
	return nil, errors.New("not asked for here")
}

func (r *pcr) RecordInitData(_ context.Context, digest []byte) error {
	r.asked = append(r.asked, digest)
	return r.err
}

func TestInitDataIsRecorded(t *testing.T) {
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{"casemate.toml": "workload = \"a\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "initdata.toml")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	used := errors.New("PCR 8 is in use")
	for _, tt := range []struct {
		name, file string
		err        error
		want       []byte // the digest asked for; nil: that there is none
	}{
		{name: "recorded", file: path, want: d.Digest()},
		{name: "nothing to record, register empty"},
		{name: "register used by something else", file: path, err: used, want: d.Digest()},
		{name: "nothing to record, register used", err: used},
	} {
		r := &pcr{err: tt.err}
		m := &machine{attester: r, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
		m.conf.InitData = tt.file
		if err := m.bindInitData(t.Context()); !errors.Is(err, tt.err) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.err)
		}
		if len(r.asked) != 1 || !bytes.Equal(r.asked[0], tt.want) || (r.asked[0] == nil) != (tt.want == nil) {
			t.Errorf("%s: asked to record %x, want %x once", tt.name, r.asked, tt.want)
		}
		if tt.err != nil && (m.initdata != nil || m.conf.Workload != "") {
			t.Errorf("%s: refused initdata was taken over", tt.name)
		}
	}
}

func TestNoPolicyAdmitsNothing(t *testing.T) {
	m := &machine{conf: config.Measured{}, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
	puller, err := m.puller(t.Context(), nil, nil, filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	defer puller.Close()
	if _, err := puller.Pull(t.Context(), "oci:"+t.TempDir()); err == nil || !strings.Contains(err.Error(), "policy") {
		t.Fatalf("got %v, want a refusal that names the policy", err)
	}
}

func TestDispatch(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want int
		text string
	}{
		{nil, exitUsage, "usage:"},
		{[]string{"fly"}, exitUsage, `unknown verb "fly"`},
		{[]string{"verity"}, exitUsage, "want one of check, open, close"},
		{[]string{"volume", "format"}, exitUsage, `got "format"`},
		{[]string{"disk", "run"}, exitUsage, "got 0 arguments"},
		{[]string{"explain", "life"}, exitUsage, `got "life"`},
		{[]string{"ps", "web"}, exitUsage, "casemate ps --help"},
		{[]string{"run"}, exitUsage, "got 0 arguments"},
		{[]string{"get", "--speed", "x"}, exitUsage, "-speed"},
		{[]string{"get", "--config", "/nonexistent", "kbs:///a/b/c"}, exitFailed, "/nonexistent"},
		{[]string{"volume", "open", "--config", "/nonexistent", "data", "/dev/null"}, exitFailed, "/nonexistent"},
		{[]string{"volume", "close", "--speed", "data"}, exitUsage, "-speed"},
		{[]string{"volume", "close", "--config", "/nonexistent"}, exitUsage, "got 0 arguments"},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			var out strings.Builder
			if got := dispatch(t.Context(), tt.args, &out); got != tt.want || !strings.Contains(out.String(), tt.text) {
				t.Fatalf("got %d and %q, want %d and %q", got, out.String(), tt.want, tt.text)
			}
		})
	}
}

// TestHelp: each verb and each one below it tells what it takes, and does nothing.
func TestHelp(t *testing.T) {
	for _, v := range verbs() {
		err := v.run(t.Context(), []string{"--help"})
		if _, ok := errors.AsType[helpRequest](err); !ok {
			t.Errorf("casemate %s --help: got %v", v.name, err)
		}
	}
	for _, tt := range []struct{ verb, below, want string }{
		{"volume", "", "create NAME DEVICE"},
		{"volume", "open", "usage: casemate volume open NAME DEVICE\nmap it\n  --config FILE"},
		{"verity", "open", "--fec-roots INT"},
		{"disk", "run", "give the container a terminal"},
		{"explain", "policy", "--denial FILE"},
		{"run", "", "(default /etc/casemate"},
	} {
		v := verbs()[slices.IndexFunc(verbs(), func(v verb) bool { return v.name == tt.verb })]
		h, _ := errors.AsType[helpRequest](v.run(t.Context(), strings.Fields(tt.below+" --help")))
		var out strings.Builder
		h.print(&out, v)
		if !strings.Contains(out.String(), tt.want) {
			t.Errorf("casemate %s %s --help: got %q, want %q", tt.verb, tt.below, out.String(), tt.want)
		}
	}
}
