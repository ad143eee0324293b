// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage/krun"
)

// TestDiskClaims: a disk that says it is another workload's, or sends the guest to another relying party, is refused
// before any key is asked for.
func TestDiskClaims(t *testing.T) {
	conf := config.Measured{KBS: config.KBS{URL: "https://kbs.example:8080"}, Disk: config.Disk{WorkloadID: "w-1", Key: "kbs:///a/b/c"}}
	for name, tt := range map[string]struct {
		trailer krun.Trailer
		want    string
	}{
		"equal":                {krun.Trailer{WorkloadID: "w-1", AttestationURL: "https://kbs.example:8080"}, ""},
		"with a slash":         {krun.Trailer{WorkloadID: "w-1", AttestationURL: "https://kbs.example:8080/"}, ""},
		"another workload":     {krun.Trailer{WorkloadID: "w-2", AttestationURL: "https://kbs.example:8080"}, "workload id"},
		"case":                 {krun.Trailer{WorkloadID: "W-1", AttestationURL: "https://kbs.example:8080"}, "workload id"},
		"another address":      {krun.Trailer{WorkloadID: "w-1", AttestationURL: "https://evil.example"}, "attestation address"},
		"without TLS":          {krun.Trailer{WorkloadID: "w-1", AttestationURL: "http://kbs.example:8080"}, "attestation address"},
		"no address":           {krun.Trailer{WorkloadID: "w-1"}, "attestation address"},
		"an address behind it": {krun.Trailer{WorkloadID: "w-1", AttestationURL: "https://kbs.example:8080@evil.example"}, "attestation address"},
	} {
		if err := claims(tt.trailer, conf); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestDiskRefuses(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := testMachine(config.Measured{}).checkDisk(disk); err == nil || !strings.Contains(err.Error(), "disk.workload_id") {
		t.Errorf("a disk where none is configured: %v", err)
	}
	if err := testMachine(config.Measured{Disk: config.Disk{WorkloadID: "w", Key: "kbs:///a/b/c"}}).checkDisk(disk); !errors.Is(err, krun.ErrNoTrailer) {
		t.Errorf("a disk without a trailer: %v", err)
	}
	for _, args := range []string{"", "open /dev/vdb", "run", "run /dev/vdb extra"} {
		if err := runDisk(t.Context(), strings.Fields(args)); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}
