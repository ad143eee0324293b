// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/initdata"
)

// TestInitDataDisk: initdata that kata's runtime attaches as a disk is found by its
// content, read once and bound like a file; what is ambiguous, unbound or late is not
// taken.
func TestInitDataDisk(t *testing.T) {
	raw, err := initdata.Encode(evidence.SHA256, map[string]string{"casemate.toml": "workload = \"a\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	d, err := initdata.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := initdata.WriteDisk(raw)
	if err != nil {
		t.Fatal(err)
	}
	looser, err := initdata.WriteDisk(append([]byte("# looser\n"), raw...))
	if err != nil {
		t.Fatal(err)
	}
	other := make([]byte, 1024)
	zeros := make([]byte, initdata.HostDataSize)
	const never, soon = 10 * time.Second, 80 * time.Millisecond
	for _, tt := range []struct {
		name     string
		disks    map[string][]byte
		late     time.Duration // when vdz, the one with initdata, appears; 0 is never
		bound    []byte
		want     string // the error, "" for accepted
		accepted bool
	}{
		{"one among others", map[string][]byte{"vda": other, "vdb": disk, "sda": other}, 0, d.Digest(), "", true},
		{"as a SCSI disk", map[string][]byte{"sdc": disk}, 0, d.Digest(), "", true},
		{"appears while the guest starts", map[string][]byte{"vda": other}, soon, d.Digest(), "", true},
		{"none, and none bound", map[string][]byte{"vda": other}, 0, zeros, "", false},
		{"two with one content", map[string][]byte{"vda": disk, "vdb": disk}, 0, d.Digest(), "both", false},
		{"two, one of them the host's", map[string][]byte{"vda": looser, "vdb": disk}, 0, d.Digest(), "both", false},
		{"written by the host", map[string][]byte{"vda": looser}, 0, d.Digest(), "initdata", false},
		{"attached to a launch without", map[string][]byte{"vda": disk}, 0, zeros, "initdata", false},
		{"taken away", map[string][]byte{"vda": other}, 0, d.Digest(), "no disk has it", false},
		{"appears too late", nil, never, d.Digest(), "no disk has it", false},
		{"in a partition", map[string][]byte{"vda": other, "vda1": disk}, 0, d.Digest(), "no disk has it", false},
		{"on a loop device", map[string][]byte{"loop0": disk}, 0, d.Digest(), "no disk has it", false},
		{"cut short", map[string][]byte{"vda": disk[:40]}, 0, d.Digest(), "it ends before", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			place := disks{block: filepath.Join(dir, "block"), dev: filepath.Join(dir, "dev"), wait: 400 * time.Millisecond}
			attach := func(name string, content []byte) {
				node := filepath.Join(place.block, name)
				err := os.WriteFile(filepath.Join(place.dev, name), content, 0o600)
				if err == nil {
					err = os.MkdirAll(node, 0o700)
				}
				if err == nil && name == "vda1" {
					err = os.WriteFile(filepath.Join(node, "partition"), []byte("1\n"), 0o600)
				}
				if err != nil {
					t.Error(err)
				}
			}
			if err := os.Mkdir(place.dev, 0o700); err != nil {
				t.Fatal(err)
			}
			for name, content := range tt.disks {
				attach(name, content)
			}
			if tt.late > 0 && tt.late < never {
				timer := time.AfterFunc(tt.late, func() { attach("vdz", disk) })
				defer timer.Stop()
			}
			m := &machine{attester: chip{hostData: tt.bound}, disks: place, steps: steps{w: io.Discard}, log: slog.New(slog.DiscardHandler)}
			err := m.bindInitData(t.Context())
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if got := m.conf.Workload == "a" && string(m.initdata) == string(raw); got != tt.accepted {
				t.Errorf("accepted: %v, want %v", got, tt.accepted)
			}
		})
	}
}
