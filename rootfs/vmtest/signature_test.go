// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// snakeoilVars are variables of OVMF with the certificate in db whose key is in the same Debian package.
const snakeoilVars = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd"

// TestVMSignedRootHash boots through the firmware, from whose db the kernel takes keys that it trusts, and lets the
// tests of package devmapper map a tree with a signature by one of them.
func TestVMSignedRootHash(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	program := slices.DeleteFunc(slices.Clone(img.tests), func(f File) bool { return f.Path != "/tests/devmapper" })
	var disks []string
	for i := range 2 {
		disk, err := TempDisk(t.TempDir(), fmt.Sprint(i), 16<<20)
		if err != nil {
			t.Fatal(err)
		}
		disks = append(disks, disk)
	}
	vm := boot(t, ctx, Config{Kernel: img.kernel.Compressed, Vars: snakeoilVars, Disks: disks, MemoryMiB: 512}, program...)
	check(t, "signed root hash", func(t *testing.T) {
		request := remote.Request{Run: "devmapper", Args: []string{"-test.v", "-test.run", "^TestTrustedRootHashSignature$"}, Seconds: 60}
		var out bytes.Buffer
		code, err := vm.Run(ctx, request, &out)
		if err != nil || code != 0 || !bytes.Contains(out.Bytes(), []byte("--- PASS: TestTrustedRootHashSignature")) {
			t.Errorf("exit code %d, %v: %s", code, err, out.Bytes())
		}
	})
}
