// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Debian's OVMF and the TPM in software.
const (
	firmwareCode = "/usr/share/OVMF/OVMF_CODE_4M.fd"
	firmwareVars = "/usr/share/OVMF/OVMF_VARS_4M.fd"
	swtpm        = "swtpm"

	tpmStart = 10 * time.Second
)

// firmware makes what c asks for besides QEMU: a copy of OVMF's variables, and a TPM. It puts their places into c.
func (vm *VM) firmware(ctx context.Context, c *Config) error {
	if c.UKI != "" || c.Vars != "" {
		vars, err := os.ReadFile(cmp.Or(c.Vars, firmwareVars))
		if err != nil {
			return fmt.Errorf("%w (`make setup` installs it)", err)
		}
		c.vars = filepath.Join(vm.dir, "vars.fd")
		if err := os.WriteFile(c.vars, vars, 0o600); err != nil {
			return err
		}
	}
	if c.TPM == "" {
		return nil
	}
	state, socket := filepath.Join(vm.dir, "tpm"), filepath.Join(vm.dir, "tpm.sock")
	if err := os.CopyFS(state, os.DirFS(c.TPM)); err != nil {
		return fmt.Errorf("copying the TPM's state: %w", err)
	}
	c.TPM = socket
	var err error
	vm.tpm, err = startTPM(ctx, state, "--ctrl", "type=unixio,path="+socket)
	if err != nil {
		return err
	}
	for end := time.Now().Add(tpmStart); ; time.Sleep(dialInterval) {
		if _, err := os.Stat(socket); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return errors.New("the TPM does not start")
		}
	}
}

// startTPM runs a TPM that ends when nobody is connected any more, and with this process.
func startTPM(ctx context.Context, state string, args ...string) (*exec.Cmd, error) {
	cmd := exec.CommandContext(ctx, swtpm, append([]string{
		"socket", "--tpm2", "--tpmstate", "dir=" + state, "--flags", "not-need-init,startup-clear", "--terminate",
	}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a TPM: %w (`make setup` installs it)", err)
	}
	return cmd, nil
}
