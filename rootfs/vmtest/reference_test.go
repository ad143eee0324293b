// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// cryptsetup is the reference that volumes are compared with, Debian's, with all that it loads. It lies in the test
// guest alone.
const cryptsetup = "/usr/sbin/cryptsetup"

// sharedLibrary finds the paths in what ldd prints.
var sharedLibrary = regexp.MustCompile(`(?m)(/\S+) \(0x[0-9a-f]+\)$`)

// referenceFiles are what tests in the guest compare with: cryptsetup, and an empty file system made by mkfs.ext4.
func referenceFiles(t *testing.T) []File {
	t.Helper()
	out, err := exec.Command("ldd", cryptsetup).Output()
	if err != nil {
		t.Fatalf("ldd %s: %v (`make setup` installs it)", cryptsetup, err)
	}
	files := []File{{Path: cryptsetup, HostPath: cryptsetup, Perm: 0o755}}
	for _, m := range sharedLibrary.FindAllStringSubmatch(string(out), -1) {
		files = append(files, File{Path: m[1], HostPath: m[1], Perm: 0o755})
	}
	image := filepath.Join(t.TempDir(), "ext4.img")
	// mkfs.ext4 makes the file, of so many KiB.
	if out, err := exec.Command("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-I", "128", "-O", "^has_journal", "-E", "lazy_itable_init=0", image, "4096k").CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	return append(files, File{Path: "/tests/ext4.img", HostPath: image, Perm: 0o644})
}
