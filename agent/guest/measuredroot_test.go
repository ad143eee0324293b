// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
)

func TestBlockDevices(t *testing.T) {
	dir := t.TempDir()
	device := func(name, size string) {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
		if size == "" {
			return
		}
		if err := os.WriteFile(filepath.Join(dir, name, "size"), []byte(size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	device("vdb", "32768\n")
	device("vda1", "2048\n")
	device("loop0", "0\n")
	device("gone", "")
	got, err := blockDevices(dir)
	if want := []string{"/dev/vda1", "/dev/vdb"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	// Of these the host has given one.
	device("device", "")
	if err := os.Symlink("../device", filepath.Join(dir, "vdb", "device")); err != nil {
		t.Fatal(err)
	}
	if got, err := disks(dir); err != nil || !slices.Equal(got, []string{"/dev/vdb"}) {
		t.Errorf("disks: got %q, %v", got, err)
	}
	for i := range maxDevices {
		device("vdc"+strconv.Itoa(i), "8\n")
	}
	if _, err := blockDevices(dir); err == nil {
		t.Error("more disks than a guest has were accepted")
	}
	if _, err := blockDevices(filepath.Join(dir, "none")); err == nil {
		t.Error("no error without sysfs")
	}
}
