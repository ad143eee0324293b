// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/casemate/casemate/rootfs/vmtest"
)

const firmwareFile = "/usr/share/OVMF/OVMF_CODE_4M.fd"

// firmwareRegister is register 0, in which OVMF has measured itself: the one value that
// casemate-build does not compute, and the owner's to learn from a boot of this firmware
// that he has watched. Here that is one of another guest, which prints it, once for each
// version of the firmware.
func firmwareRegister(t *testing.T, tpm ownedTPM) string {
	t.Helper()
	b, err := openBuild()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(firmwareFile)
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	known := filepath.Join(b.dir, fmt.Sprintf("firmware-%x", sha256.Sum256(text)))
	if value, err := os.ReadFile(known); err == nil {
		return string(value)
	}
	ctx, cancel := context.WithTimeout(t.Context(), vmLimit)
	defer cancel()
	value, err := b.watchFirmware(ctx, t, tpm)
	if err != nil {
		t.Fatalf("learning register 0 of %s: %v", firmwareFile, err)
	}
	if err := os.WriteFile(known, []byte(value), 0o600); err != nil {
		t.Fatal(err)
	}
	return value
}

func (b *ownerBuild) watchFirmware(ctx context.Context, t *testing.T, tpm ownedTPM) (string, error) {
	dir := t.TempDir()
	printer, initramfs, uki := filepath.Join(dir, "printpcrs"), filepath.Join(dir, "initramfs"), filepath.Join(dir, "print.efi")
	if err := vmtest.Build(ctx, vmtest.Program{Package: "./rootfs/measure/testdata/printpcrs"}, printer); err != nil {
		return "", err
	}
	if err := vmtest.WriteImage(ctx, initramfs, b.kernel, printer, nil); err != nil {
		return "", err
	}
	if err := b.join(ctx, initramfs, uki); err != nil {
		return "", err
	}
	vm := bootVM(ctx, t, vmtest.Config{UKI: uki, TPM: tpm.state, MemoryMiB: 512, TimeLimit: vmLimit})
	line, err := vm.Console.Expect(ctx, "PCR sha256 0 ")
	if err != nil {
		return "", err
	}
	_, value, _ := strings.Cut(line, "PCR sha256 0 ")
	if len(value) != 2*sha256.Size {
		return "", fmt.Errorf("the guest printed %q", line)
	}
	return value, vm.Wait(ctx)
}

// ownedTPM is the state of a TPM whose owner has made an attestation key in it before the
// machine leaves his hands, as docs/how-to/tpm.md has it.
type ownedTPM struct {
	state string
	key   string // the public key, PEM
}

// makeTPM makes one with tpm2-tools. Its banks but SHA-256 are switched off, which saves
// the firmware three quarters of its hashing.
func makeTPM(t *testing.T) ownedTPM {
	t.Helper()
	dir := t.TempDir()
	o := ownedTPM{state: filepath.Join(dir, "state")}
	if err := os.Mkdir(o.state, 0o700); err != nil {
		t.Fatal(err)
	}
	port := twoPorts(t)
	address := func(port int) string { return "type=tcp,port=" + strconv.Itoa(port) + ",bindaddr=127.0.0.1" }
	tpm := exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+o.state, "--flags", "not-need-init,startup-clear",
		"--server", address(port), "--ctrl", address(port+1))
	tpm.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := tpm.Start(); err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	defer func() {
		_ = tpm.Process.Signal(syscall.SIGTERM)
		_ = tpm.Wait()
	}()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(port)); err == nil {
			_ = c.Close()
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"tpm2_createek", "-c", "ek.ctx", "-G", "rsa", "-u", "ek.pub"},
		{"tpm2_flushcontext", "-t"},
		{"tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "rsa", "-g", "sha256", "-s", "rsassa", "-u", "ak.pub"},
		{"tpm2_flushcontext", "-t"},
		{"tpm2_evictcontrol", "-C", "o", "-c", "ak.ctx", "0x81010002"},
		{"tpm2_flushcontext", "-t"},
		{"tpm2_readpublic", "-c", "0x81010002", "-f", "pem", "-o", "ak.pem"},
		{"tpm2_pcrallocate", "sha1:none+sha256:all+sha384:none+sha512:none"},
		{"tpm2_shutdown", "-c"},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "TPM2TOOLS_TCTI=swtpm:host=127.0.0.1,port="+strconv.Itoa(port))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", args, err, out)
		}
	}
	text, err := os.ReadFile(filepath.Join(dir, "ak.pem"))
	if err != nil {
		t.Fatal(err)
	}
	o.key = string(text)
	return o
}

// twoPorts returns a port that is free together with the next one, which is where
// tpm2-tools look for the control channel.
func twoPorts(t *testing.T) int {
	t.Helper()
	for range 50 {
		a, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := a.Addr().(*net.TCPAddr).Port
		b, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+1))
		_ = a.Close()
		if err == nil {
			_ = b.Close()
			return port
		}
	}
	t.Fatal("no two free ports in a row")
	return 0
}
