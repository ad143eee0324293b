// SPDX-License-Identifier: Apache-2.0

//go:build vm

package chain

import (
	"crypto/sha256"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// knownFirmware has what OVMF measures of itself into register 0, by the SHA-256 of its
// file: the one value that casemate-build does not compute. It is the owner's to learn
// from a boot of that firmware that he has watched, and here from one of another guest.
var knownFirmware = map[string]string{
	"b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c": "177e29c417b6b61c7cf46ed30b4468931f58642527a268b556254e39b941ec6a",
}

const firmwareFile = "/usr/share/OVMF/OVMF_CODE_4M.fd"

func firmwareRegister(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(firmwareFile)
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(text))
	value, ok := knownFirmware[sum]
	if !ok {
		t.Fatalf("%s with SHA-256 %s is another than those whose register 0 is known here", firmwareFile, sum)
	}
	return value
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
