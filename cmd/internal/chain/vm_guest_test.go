// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/casemate/casemate/cmd/internal/fixture"
	"github.com/casemate/casemate/rootfs/cpio"
	"github.com/casemate/casemate/rootfs/kernel"
	"github.com/casemate/casemate/rootfs/vmtest"
)

const (
	efiStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub" // Debian's systemd-boot-efi

	// tpmConfig is the measured configuration of the guest that attests by its TPM, and
	// keeps layers and what containers write on the first disk, which is scratch.
	tpmConfig   = "tee = \"tpm\"\n\n[scratch]\ndevice = \"serial:disk0\"\ncipher = \"aes-xts-plain64\"\nintegrity = \"hmac(sha256)\"\nmin_size = 134217728\n"
	scratchSize = 128 << 20

	measuredConfig = "/etc/casemate/casemate.toml"
)

// guestFiles are those that an owner builds for a guest: its root as a disk, and what
// boots it and no other.
type guestFiles struct{ dir, root, initramfs, uki string }

// ownerBuild runs casemate-build as an owner does, in a directory that lasts as long as
// this process and holds the lock against others.
type ownerBuild struct {
	dir, kernels string
	kernel       *kernel.Kernel
	unlock       func()
}

var openBuild = sync.OnceValues(func() (*ownerBuild, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cache, err := vmtest.CacheDir()
	if err != nil {
		return nil, err
	}
	b := &ownerBuild{dir: filepath.Join(cache, "measured"), kernels: filepath.Join(cache, "kernel")}
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return nil, err
	}
	if b.unlock, err = kernel.Lock(ctx, filepath.Join(b.dir, "lock")); err != nil {
		return nil, err
	}
	b.kernel, err = kernel.Prepare(ctx, b.kernels)
	return b, err
})

// guest builds the root with the given files, by their names in it, and its initramfs.
// uki says that an EFI program is wanted as well.
func (b *ownerBuild) guest(ctx context.Context, name, form, casemate string, files map[string]string, uki bool) (guestFiles, error) {
	dir := filepath.Join(b.dir, name)
	g := guestFiles{dir: dir, root: filepath.Join(dir, "root.img"), initramfs: filepath.Join(dir, "boot.zst"), uki: filepath.Join(dir, "boot.efi")}
	args := []string{"rootfs", "image", "--casemate", program(casemate), "--cache", b.kernels, "--fs", form, "-o", dir}
	for path, host := range files {
		args = append(args, "--file", path+"="+host)
	}
	if _, err := fixture.Run(ctx, program("casemate-build"), args...); err != nil {
		return g, err
	}
	pin, err := os.ReadFile(filepath.Join(dir, "root_hash.txt"))
	if err != nil {
		return g, err
	}
	if _, err := fixture.Run(ctx, program("casemate-build"), "rootfs", "initramfs", "--casemate", program(casemate), "--cache", b.kernels,
		"--pin", strings.TrimSpace(string(pin)), "-o", g.initramfs); err != nil || !uki {
		return g, err
	}
	return g, b.join(ctx, g.initramfs, g.uki)
}

// join makes the EFI program.
func (b *ownerBuild) join(ctx context.Context, initramfs, out string) error {
	_, err := fixture.Run(ctx, program("casemate-build"), "rootfs", "uki", "--cache", b.kernels, "--stub", efiStub,
		"--initrd", initramfs, "--cmdline", vmtest.CommandLine, "-o", out)
	return err
}

// tpmGuests are the guest that the owner registers, another that differs in one file of
// its root, which is ext4, the first's EFI program with one more file in its initramfs, and one that sets up its own
// network.
type tpmGuests struct {
	good, rebuilt, bare guestFiles
	changed             string
}

var buildTPMGuests = sync.OnceValues(func() (g tpmGuests, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	started := time.Now()
	b, err := openBuild()
	if err != nil {
		return g, err
	}
	config, bare, note := filepath.Join(b.dir, "casemate.toml"), filepath.Join(b.dir, "bare.toml"), filepath.Join(b.dir, "note")
	if err := errors.Join(os.WriteFile(config, []byte(tpmConfig), 0o600), os.WriteFile(bare, []byte(tpmConfig+bareConfig), 0o600), os.WriteFile(note, []byte("another root\n"), 0o600)); err != nil {
		return g, err
	}
	if g.good, err = b.guest(ctx, "good", "erofs", "casemate", map[string]string{measuredConfig: config}, true); err != nil {
		return g, err
	}
	if g.rebuilt, err = b.guest(ctx, "rebuilt", "ext4", "casemate", map[string]string{measuredConfig: config, "/etc/casemate/note": note}, true); err != nil {
		return g, err
	}
	if g.bare, err = b.guest(ctx, "bare", "erofs", "casemate", map[string]string{measuredConfig: bare}, true); err != nil {
		return g, err
	}
	longer := filepath.Join(b.dir, "longer.zst")
	if err := appendFile(g.good.initramfs, longer, "/etc/note", "one file more\n"); err != nil {
		return g, err
	}
	g.changed = filepath.Join(b.dir, "changed.efi")
	err = b.join(ctx, longer, g.changed)
	fmt.Printf("vm: measured guests built in %.1fs\n", time.Since(started).Seconds())
	return g, err
})

// appendFile adds a second archive behind an initramfs, as anybody can who cannot write
// the first: the kernel unpacks one over the other.
func appendFile(initramfs, out, name, text string) error {
	b, err := os.ReadFile(initramfs)
	if err != nil {
		return err
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, make([]byte, (4-len(b)%4)%4)...))
	w := cpio.NewWriter(f)
	return errors.Join(err, w.File(name, 0o644, int64(len(text)), strings.NewReader(text)), w.Close(), f.Close())
}

// bootVM starts a machine, prints its console if the test fails, and ends it with the test.
func bootVM(ctx context.Context, t *testing.T, c vmtest.Config) *vmtest.VM {
	t.Helper()
	vm, err := vmtest.Boot(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Stop(); err != nil {
			t.Errorf("stopping the machine: %v", err)
		}
		fmt.Printf("vm: %s took %.1fs, its emulator %.1fs of processor time\n", t.Name(), vm.Age().Seconds(), vm.CPU().Seconds())
		if t.Failed() {
			t.Logf("console:\n%s", vm.Console)
		}
	})
	return vm
}

// check runs one check and prints its line.
func check(t *testing.T, name string, f func(t *testing.T)) {
	t.Helper()
	started, full := time.Now(), strings.TrimPrefix(t.Name(), "TestVM")+"/"+name
	if t.Run(name, f) {
		fmt.Printf("vm: %s ok (%.1fs)\n", full, time.Since(started).Seconds())
	} else {
		fmt.Printf("vm: %s FAILED\n", full)
		t.FailNow()
	}
}

// expect waits for lines of the console, one after the other.
func expect(ctx context.Context, t *testing.T, vm *vmtest.VM, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := vm.Console.Expect(ctx, text); err != nil {
			t.Fatal(err)
		}
	}
}
