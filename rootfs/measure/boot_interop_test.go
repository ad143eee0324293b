// SPDX-License-Identifier: Apache-2.0

//go:build interop

package measure

import (
	"bytes"
	"context"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/rootfs/cpio"
	"github.com/casemate/casemate/rootfs/kernel"
	"github.com/casemate/casemate/rootfs/vmtest"
)

const (
	stubFile     = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub" // Debian's systemd-boot-efi
	firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	commandLine  = "console=ttyS0 panic=-1 quiet cryptomgr.notests"
)

// booter is a way to boot.
type booter interface {
	PCRs(h crypto.Hash) (PCRs, error)
}

// TestBoot boots a real UKI, and a kernel by itself, with OVMF, a TPM and Debian's
// kernel, and compares what the TPM measured with what was computed before.
func TestBoot(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	dir := t.TempDir()
	esp := filepath.Join(dir, "esp", "EFI", "BOOT")
	if err := os.MkdirAll(esp, 0o755); err != nil {
		t.Fatal(err)
	}
	uki := filepath.Join(esp, "BOOTX64.EFI")
	parts := makeUKI(ctx, t, dir, uki)
	image, err := os.ReadFile(uki)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseUKI(image)
	if err != nil {
		t.Fatal(err)
	}
	disk := []string{"-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:" + filepath.Join(dir, "esp"), "-device", "virtio-blk-pci,drive=esp,bootindex=0"}
	for _, tt := range []struct {
		name string
		boot booter
		args []string
	}{
		{"disk", &TPMBoot{UKI: parsed}, disk},
		{"QEMU kernel with load options", &TPMBoot{UKI: parsed, QEMUKernel: true, LoadOptions: commandLine + " other"}, []string{"-kernel", uki, "-append", commandLine + " other"}},
		// So much that low memory ends where the kernel's own limit for initrds is passed.
		{"kernel alone", &QEMUKernelBoot{Kernel: parsed.Linux, Initrd: parsed.Initrd, CommandLine: commandLine, MemoryMiB: 2700},
			[]string{"-m", "2700", "-kernel", parts.kernel, "-initrd", parts.initrd, "-append", commandLine}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			console := bootWithTPM(ctx, t, tt.args)
			for name, h := range map[string]crypto.Hash{"sha256": crypto.SHA256, "sha384": crypto.SHA384} {
				want, err := tt.boot.PCRs(h)
				if err != nil {
					t.Fatal(err)
				}
				for pcr, value := range map[int][]byte{4: want.PCR4, 8: make([]byte, h.Size()), 9: want.PCR9, 11: want.PCR11, 12: want.PCR12} {
					if got := printed(console, name, pcr); got != hex.EncodeToString(value) {
						t.Errorf("PCR %d %s: the TPM has %q, computed %x", pcr, name, got, value)
					}
				}
			}
			if t.Failed() {
				t.Logf("console:\n%.4000s", console)
			}
		})
	}
}

// printed finds what the guest printed about one register.
func printed(console, bank string, pcr int) string {
	found := regexp.MustCompile(fmt.Sprintf(`PCR %s %d ([0-9a-f]+)`, bank, pcr)).FindStringSubmatch(console)
	if found == nil {
		return ""
	}
	return found[1]
}

// parts are files that a UKI was made of.
type parts struct{ kernel, initrd string }

func makeUKI(ctx context.Context, t *testing.T, dir, out string) parts {
	t.Helper()
	if _, err := os.Stat(stubFile); err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	cache, err := vmtest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Prepare(ctx, filepath.Join(cache, "kernel"))
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(dir, "init")
	if err := vmtest.Build(ctx, vmtest.Program{Package: "./rootfs/measure/testdata/printpcrs"}, program); err != nil {
		t.Fatal(err)
	}
	made := parts{k.Compressed, makeInitrd(t, dir, program)}
	var args []string
	for _, s := range []struct{ name, at, path string }{
		{".osrel", "0x20000", writeFile(t, dir, "osrel", "ID=casemate\n")},
		{".cmdline", "0x30000", writeFile(t, dir, "cmdline", commandLine)},
		{".linux", "0x2000000", made.kernel},
		{".initrd", "0x3000000", made.initrd},
	} {
		args = append(args, "--add-section", s.name+"="+s.path, "--change-section-vma", s.name+"="+s.at)
	}
	if text, err := exec.CommandContext(ctx, "objcopy", append(args, stubFile, out)...).CombinedOutput(); err != nil {
		t.Fatalf("running objcopy: %v: %s", err, text)
	}
	return made
}

// TestAuthenticodeOfSignedKernel takes Debian's own signature as the other opinion: it
// has the hash in it.
func TestAuthenticodeOfSignedKernel(t *testing.T) {
	cache, err := vmtest.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	k, err := kernel.Prepare(t.Context(), filepath.Join(cache, "kernel"))
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(k.Compressed)
	if err != nil {
		t.Fatal(err)
	}
	p, err := ParsePE(image)
	if err != nil {
		t.Fatal(err)
	}
	if p.end == len(image) {
		t.Fatal("Debian's kernel is not signed")
	}
	if hash := p.Authenticode(crypto.SHA256); !bytes.Contains(image[p.end:], hash) {
		t.Errorf("the signature is not over %x", hash)
	}
}

func writeFile(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// makeInitrd packs the program as the first process.
func makeInitrd(t *testing.T, dir, program string) string {
	t.Helper()
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "initrd")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := cpio.NewWriter(f)
	err = errors.Join(w.CharDevice("/dev/console", 0o600, 5, 1), w.CharDevice("/dev/null", 0o666, 1, 3),
		w.File("/init", 0o755, int64(len(content)), strings.NewReader(string(content))), w.Close(), f.Close())
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// bootWithTPM runs a guest until it powers off, and returns its console.
func bootWithTPM(ctx context.Context, t *testing.T, args []string) string {
	t.Helper()
	// Unix socket names are short: not below a test's own long directory.
	dir, err := os.MkdirTemp("", "tpm")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	vars, err := os.ReadFile(firmwareVars)
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	socket := filepath.Join(dir, "sock")
	tpm := exec.CommandContext(ctx, "swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	if err := tpm.Start(); err != nil {
		t.Fatalf("starting swtpm: %v (`make setup` installs it)", err)
	}
	defer func() {
		_ = tpm.Process.Kill()
		_ = tpm.Wait()
	}()
	for range 100 {
		if _, err := os.Stat(socket); err == nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	// One processor and no KVM, as package vmtest does and says why.
	all := append([]string{
		"200", "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-M", "q35", "-m", "512", "-smp", "1",
		"-nodefaults", "-no-user-config", "-no-reboot", "-nographic", "-serial", "stdio", "-monitor", "none",
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + firmwareCode,
		"-drive", "if=pflash,unit=1,format=raw,file=" + writeFile(t, dir, "vars.fd", string(vars)),
		"-chardev", "socket,id=ct,path=" + socket, "-tpmdev", "emulator,id=tpm0,chardev=ct", "-device", "tpm-crb,tpmdev=tpm0",
	}, args...)
	out, err := exec.CommandContext(ctx, "timeout", all...).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "DONE") {
		t.Fatalf("running the guest: %v\n%.4000s", err, out)
	}
	return string(out)
}
