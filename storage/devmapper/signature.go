// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// signatureKey names the key that hands a signature to the kernel. The name is the signature's own, so that no other
// key is taken for it.
func signatureKey(signature []byte) string {
	sum := sha256.Sum256(signature)
	return "casemate-verity-" + hex.EncodeToString(sum[:])
}

// withSignatures calls load while a keyring holds the targets' signatures: a table names them only (kernel
// security/keys/core.rst). The keyring is the calling thread's, which no other thread and no other program searches.
func withSignatures(targets []Target, load func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, t := range targets {
		v, ok := t.(Verity)
		if !ok || len(v.Signature) == 0 {
			continue
		}
		id, err2 := unix.AddKey("user", signatureKey(v.Signature), v.Signature, unix.KEY_SPEC_THREAD_KEYRING)
		if err2 != nil {
			return fmt.Errorf("handing over a signature of %d bytes: %w", len(v.Signature), err2)
		}
		defer func() {
			if _, err3 := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0); err3 != nil {
				err = errors.Join(err, fmt.Errorf("taking a signature back: %w", err3))
			}
		}()
	}
	return load()
}
