// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"fmt"
	"os/exec"
	"regexp"
)

// sharedLibrary finds the paths in what ldd prints.
var sharedLibrary = regexp.MustCompile(`(?m)(/\S+) \(0x[0-9a-f]+\)$`)

// HostProgram lists a program of this machine's, with all that it loads, for the same places in a test guest.
func HostProgram(path string) ([]File, error) {
	out, err := exec.Command("ldd", path).Output()
	if err != nil {
		return nil, fmt.Errorf("ldd %s: %w (`make setup` installs it)", path, err)
	}
	files := []File{{Path: path, HostPath: path, Perm: 0o755}}
	for _, m := range sharedLibrary.FindAllStringSubmatch(string(out), -1) {
		files = append(files, File{Path: m[1], HostPath: m[1], Perm: 0o755})
	}
	return files, nil
}
