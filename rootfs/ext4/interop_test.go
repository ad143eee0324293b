// SPDX-License-Identifier: Apache-2.0

//go:build interop

package ext4

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join("/sbin", name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
	return string(out)
}

// TestCheckedByE2fsck: nothing is wrong in images of few and many files, of one group and
// of several, also where more inodes than data ask for them, with files of one extent and of four, and the owner's tool reads what was written.
func TestCheckedByE2fsck(t *testing.T) {
	for name, fill := range map[string]func(*Writer) error{
		"nothing":        func(*Writer) error { return nil },
		"sample":         sample,
		"many files":     func(w *Writer) error { return large(w, 40000, 1) },
		"many empty":     func(w *Writer) error { return large(w, 70000, 0) },
		"several groups": func(w *Writer) error { return large(w, 3, 200<<20) },
		"largest file":   func(w *Writer) error { return large(w, 1, MaxFile) },
	} {
		f := create(t)
		w := NewWriter(f)
		if err := fill(w); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		tool(t, "e2fsck", "-fn", f.Name())
		if name != "sample" {
			continue
		}
		for command, want := range map[string]string{
			"cat /etc/text": "hello", "stat /short": `Fast link dest: "usr/lib/big"`, "stat /dev/null": "Device major/minor number: 01:03", "stat /tmp": "Mode:  01777",
			"stat /usr/lib/big": "Size: 9000",
		} {
			if out := tool(t, "debugfs", "-R", command, f.Name()); !strings.Contains(out, want) {
				t.Errorf("%s: got %s, want %q", command, out, want)
			}
		}
	}
}
