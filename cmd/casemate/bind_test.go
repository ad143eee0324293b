// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
)

// initDataDisks are files in the form of disks: one document, and the same with a comment.
func initDataDisks(t *testing.T) (d *initdata.InitData, disk func(content []byte) string, good, edited []byte) {
	t.Helper()
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{"casemate.toml": "workload = \"a\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	if d, err = initdata.Parse(raw); err != nil {
		t.Fatal(err)
	}
	for doc, to := range map[string]*[]byte{string(raw): &good, "# looser\n" + string(raw): &edited} {
		if *to, err = initdata.Device([]byte(doc)); err != nil {
			t.Fatal(err)
		}
	}
	return d, func(content []byte) string {
		path := filepath.Join(t.TempDir(), "disk")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}, good, edited
}

// TestInitDataOnDisk: one disk holds initdata, wherever it is; the host can neither bring
// two nor take it away from a guest whose report carries a digest.
func TestInitDataOnDisk(t *testing.T) {
	d, disk, good, edited := initDataDisks(t)
	zeros := make([]byte, initdata.HostDataSize)
	empty, blank := disk(nil), disk(make([]byte, 1<<20))
	torn := append(append([]byte{}, good[:16]...), make([]byte, 512)...)
	for _, tt := range []struct {
		name    string
		disks   []string
		bound   []byte
		wantErr string
	}{
		{"first", []string{disk(good), blank}, d.Digest(), ""},
		{"last, behind zero-byte disks", []string{empty, blank, "/nonexistent", disk(good)}, d.Digest(), ""},
		{"none, and none in the report", []string{empty, blank}, zeros, ""},
		{"no disks", nil, zeros, ""},
		{"two of them", []string{disk(good), disk(edited)}, d.Digest(), "hold initdata"},
		{"the same twice", []string{disk(good), disk(good)}, d.Digest(), "hold initdata"},
		{"a torn one before the good one", []string{disk(torn), disk(good)}, d.Digest(), "reading an initdata device"},
		{"a torn one behind the good one", []string{disk(good), disk(torn)}, d.Digest(), "reading an initdata device"},
		{"edited", []string{disk(edited)}, d.Digest(), "this document is"},
		{"taken away", []string{blank}, d.Digest(), "no file is configured and no disk has it"},
		{"launched with none", []string{disk(good)}, zeros, "all zero"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // the wait for a late disk costs nothing
				m := &machine{attester: chip{hostData: tt.bound}, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
				m.disks = func() ([]string, error) { return tt.disks, nil }
				err := m.bindInitData(t.Context())
				if tt.wantErr == "" && err != nil || tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
					t.Fatalf("got %v, want %q", err, tt.wantErr)
				}
				if taken := m.conf.Workload == "a"; taken != (err == nil && len(tt.disks) > 0 && !initdata.IsZero(tt.bound)) {
					t.Errorf("taken over: %v", taken)
				}
			})
		})
	}
}

// TestInitDataThatComesLate: a disk may take as long as drivers do, and no longer.
func TestInitDataThatComesLate(t *testing.T) {
	d, disk, good, _ := initDataDisks(t)
	path := disk(good)
	for late, ok := range map[time.Duration]bool{time.Second: true, time.Minute: false} {
		synctest.Test(t, func(t *testing.T) {
			m := &machine{attester: chip{hostData: d.Digest()}, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
			start := time.Now()
			m.disks = func() ([]string, error) {
				if time.Since(start) < late {
					return nil, nil
				}
				return []string{path}, nil
			}
			if err := m.bindInitData(t.Context()); (err == nil) != ok {
				t.Errorf("after %s: %v", late, err)
			}
			if took := time.Since(start); took > 2*lateInitData {
				t.Errorf("it waited %s", took)
			}
		})
	}
}
