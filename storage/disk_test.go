// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestFindSerial looks in a tree like sysfs. A host that gives two disks one number does not get to choose which of
// them is meant.
func TestFindSerial(t *testing.T) {
	sys := t.TempDir()
	for file, text := range map[string]string{
		"vda/serial": "one\n", "vdb/serial": "two", "vdc/serial": "two", "vdd/size": "8", "nvme0n1/device/serial": "three               \n", "cciss!c0/serial": "four",
	} {
		path := filepath.Join(sys, "block", file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for serial, want := range map[string]string{"one": "/dev/vda", "three": "/dev/nvme0n1", "four": "/dev/cciss/c0", "two": "", "on": ""} {
		got, err := findSerial(sys, "/dev", serial)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", serial, got, err, want)
		}
		if errors.Is(err, ErrNoDisk) != (serial == "on") {
			t.Errorf("%s: got %v", serial, err)
		}
	}
}
