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
// of several, also where more inodes than data ask for them, with files of one extent, of four and of more, and the owner's tool reads what was written.
func TestCheckedByE2fsck(t *testing.T) {
	for name, fill := range map[string]func(*Writer) error{
		"nothing":        func(*Writer) error { return nil },
		"sample":         sample,
		"many files":     func(w *Writer) error { return large(w, 40000, 1) },
		"many empty":     func(w *Writer) error { return large(w, 70000, 0) },
		"several groups": func(w *Writer) error { return large(w, 3, 200<<20) },
		"four extents":   func(w *Writer) error { return large(w, 1, maxExtents*extentBlocks*BlockSize) },
		"five extents":   func(w *Writer) error { return large(w, 1, maxExtents*extentBlocks*BlockSize+1) },
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
			"stat /usr/lib/big": "Size: 9000", "stat /dev/disk": "Device major/minor number: 259:70000", "stat /pipe": "Type: FIFO", "ea_get /ping security.capability": "0123456789abcdefghij",
			"stat /ping": "User: 100000   Group: 200000", "stat /later": "Links: 2", "stat /": "Mode:  0750",
			"stat <25>": "mtime: 0xe0000000:00000000 -- Sat Dec 27",
		} {
			if out := tool(t, "debugfs", "-R", command, f.Name()); !strings.Contains(out, want) {
				t.Errorf("%s: got %s, want %q", command, out, want)
			}
		}
	}
}
