// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// cryptsetup and veritysetup are the references that volumes and trees are compared with, Debian's, with all that they
// load. They lie in the test guest alone.
const (
	cryptsetup  = "/usr/sbin/cryptsetup"
	veritysetup = "/usr/sbin/veritysetup"
)

// referenceFiles are what tests in the guest compare with: both programs, and an empty file system made by mkfs.ext4.
func referenceFiles(t *testing.T) []File {
	t.Helper()
	var files []File
	for _, program := range []string{cryptsetup, veritysetup} {
		list, err := HostProgram(program)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list { // libraries that both load
			if !slices.Contains(files, f) {
				files = append(files, f)
			}
		}
	}
	image := filepath.Join(t.TempDir(), "ext4.img")
	// mkfs.ext4 makes the file, of so many KiB.
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-I", "128", "-O", "^has_journal", "-E", "lazy_itable_init=0", image, "4096k").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return append(files, File{Path: "/tests/ext4.img", HostPath: image, Perm: 0o644})
}
