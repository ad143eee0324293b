// SPDX-License-Identifier: Apache-2.0

//go:build vm

package vmtest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	guestimage "github.com/casemate/casemate/rootfs/image"
)

// TestVMDebugGuest boots the guest of rootfs --debug: it says what it is, and its console
// has a shell. The kernel unpacks the archive of the mark and the one behind it.
func TestVMDebugGuest(t *testing.T) {
	ctx, cancel := budget(t)
	defer cancel()
	img, err := prepare()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(img.dir, "debug")
	if err := Build(ctx, Program{Package: "./cmd/casemate", Tags: "debug", Cgo: true}, program); err != nil {
		t.Fatal(err)
	}
	vm, err := Boot(ctx, Config{Kernel: img.kernel.Image, Initrd: debugInitrd(t, program), MemoryMiB: 512, TimeLimit: limit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Stop(); err != nil {
			t.Errorf("stopping the machine: %v", err)
		}
		if t.Failed() {
			t.Logf("console:\n%s", vm.Console)
		}
	})
	check(t, "debug guest says so", func(t *testing.T) {
		if _, err := vm.Console.Expect(ctx, "DEBUG BUILD"); err != nil {
			t.Fatal(err)
		}
	})
	check(t, "debug guest has a shell", func(t *testing.T) {
		if _, err := vm.Console.Expect(ctx, "built-in shell"); err != nil {
			t.Fatal(err)
		}
	})
}

// debugInitrd writes the guest as casemate-build does.
func debugInitrd(t *testing.T, program string) string {
	t.Helper()
	recipe, err := guestimage.DefaultRecipe()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := recipe.GuestTree(guestimage.Inputs{Program: program, Debug: true, Shell: busybox})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(guestimage.WriteInitramfs(f, tree, guestimage.Zstd), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
