// SPDX-License-Identifier: Apache-2.0

// Extend8 is the first process of a test guest that was tampered with: it extends
// register 8 of the TPM before casemate runs, and makes way for it.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxtpm"
	"golang.org/x/sys/unix"
)

const mountPoint = "/tpmdev"

func main() {
	if err := extend(); err != nil {
		fmt.Fprintln(os.Stderr, "extend8:", err)
	}
	fmt.Fprintln(os.Stderr, "extend8:", unix.Exec("/casemate", []string{"casemate"}, []string{"HOME=/"}))
}

func extend() (err error) {
	if err := errors.Join(os.Mkdir(mountPoint, 0o700), unix.Mount("devtmpfs", mountPoint, "devtmpfs", 0, "")); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Unmount(mountPoint, 0), os.Remove(mountPoint)) }()
	t, err := linuxtpm.Open(mountPoint + "/tpm0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	_, err = tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: 8, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: make([]byte, 32)}}},
	}.Execute(t)
	return err
}
