// SPDX-License-Identifier: Apache-2.0

//go:build interop

package measure

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestKrunLibraryOfCompiler reads libraries that a compiler made, as libkrunfw's two
// interfaces have them, with and without optimizing.
func TestKrunLibraryOfCompiler(t *testing.T) {
	const source = `#include <stddef.h>
__attribute__((aligned(4096))) char QBOOT_BUNDLE[0x10000 + 1] = "qboot";
__attribute__((aligned(4096))) char KERNEL_BUNDLE[0x1300000 + 1] = "kernel";
__attribute__((aligned(4096))) char INITRD_BUNDLE[0x5000 + 1] = "initrd";
#ifdef ENTRY
char *krunfw_get_kernel(size_t *load, size_t *entry, size_t *size) { *load = 0x1000000; *entry = ENTRY; *size = sizeof KERNEL_BUNDLE - 1; return KERNEL_BUNDLE; }
#else
char *krunfw_get_kernel(size_t *load, size_t *size) { *load = 0x1000000; *size = sizeof KERNEL_BUNDLE - 1; return KERNEL_BUNDLE; }
#endif
`
	for i, flags := range [][]string{{"-O0"}, {"-O2"}, {"-O0", "-DENTRY=0x1000000"}, {"-O2", "-DENTRY=0x1000000"}, {"-O0", "-DENTRY=0x1000140"}, {"-O2", "-DENTRY=0x1000140"}, {"-Os", "-fcf-protection=full"}} {
		dir := t.TempDir()
		out := filepath.Join(dir, "libkrunfw-sev.so")
		args := append(flags, "-fPIC", "-shared", "-s", "-o", out, writeFile(t, dir, "bundle.c", source))
		if text, err := exec.CommandContext(t.Context(), "gcc", args...).CombinedOutput(); err != nil {
			t.Fatalf("running gcc: %v: %s", err, text)
		}
		library, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseKrunLibrary(library)
		if err != nil {
			t.Errorf("%d, %s: %v", i, flags, err)
			continue
		}
		got := fmt.Sprintf("%s %d %s %d %s %d %#x", f.Qboot[:5], len(f.Qboot), f.Kernel[:6], len(f.Kernel), f.Initrd[:6], len(f.Initrd), f.KernelAddress)
		if want := "qboot 65536 kernel 19922944 initrd 20480 0x1000000"; got != want {
			t.Errorf("%s: got %s, want %s", flags, got, want)
		}
	}
}
