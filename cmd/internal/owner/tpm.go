// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
)

// TPMReference are the reference values for quotes of a TPM 2.0 that no hardware report
// binds. What it says is worth as much as whoever makes the TPM: for a virtual one that
// is the host. Memory is not encrypted by it.
type TPMReference struct {
	// AttestationKeys are the keys whose quotes are taken: "sha256:" and the lower-case
	// hex of SHA-256 over the DER SubjectPublicKeyInfo, or the public key as PEM. A quote
	// by any other key is refused. Of a device the list may be empty, where the workload has
	// a policy of its own: then the TEE's report alone names the key, which says that the
	// measured guest asked this TPM, and nothing of who made it.
	AttestationKeys []string `toml:"attestation_keys" json:"attestation_keys"`

	// Debug says that these are the values of debug images, as in SNPReference.
	Debug bool `toml:"debug,omitempty" json:"debug,omitempty"`

	// PCRs are the accepted values by register number, "0" to "23": 32 bytes of the
	// SHA-256 bank, lower-case hex. Required are 0 (firmware) and 4 (what it started).
	// Register 8 is compared with the initdata, 16 and 23 can be reset by anybody in the
	// guest: none of the three can be listed. Of a device none is required: the TEE's own
	// measurement pins the guest.
	PCRs PCRs `toml:"pcrs" json:"pcrs"`
}

// PCRs are accepted values by register number.
type PCRs map[string][]string

// Register returns the accepted values of one register, nil when any will do.
func (p PCRs) Register(index int) []string { return p[strconv.Itoa(index)] }

// KeyDigests returns AttestationKeys with each PEM replaced by its digest.
func (t *TPMReference) KeyDigests() []string {
	list := make([]string, 0, len(t.AttestationKeys))
	for _, key := range t.AttestationKeys {
		if digest, err := keyDigest(key); err == nil { // Validate has seen the others
			list = append(list, digest)
		}
	}
	return list
}

// Register returns the accepted values of one register, nil when any will do.
func (t *TPMReference) Register(index int) []string { return t.PCRs.Register(index) }

// pemStart begins a key in a list of digests.
const pemStart = "-----BEGIN "

func keyDigest(key string) (string, error) {
	text := strings.TrimSpace(key)
	if !strings.HasPrefix(text, pemStart) {
		digest, ok := strings.CutPrefix(text, "sha256:")
		if !ok {
			return "", errors.New("want sha256:HEX or a public key in PEM")
		}
		return text, checkHex(digest, sha256.Size)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(strings.TrimSpace(string(rest))) != 0 {
		return "", errors.New("want one PEM block of type PUBLIC KEY")
	}
	if _, err := evidence.ParseTPMKey(block.Bytes); err != nil {
		return "", err
	}
	return evidence.KeyDigest(block.Bytes), nil
}

func (r *Registration) validateTPM() error {
	if device := r.HasDevice(evidence.TPM); !r.Takes(evidence.TPM) {
		if r.TPM != nil && !device {
			return errors.New(`has tpm reference values but tees lacks "tpm", and devices as well`)
		}
		if device {
			return r.validateTPMDevice()
		}
		return nil
	}
	if r.TPM == nil || len(r.TPM.AttestationKeys) == 0 {
		return errors.New("no tpm attestation_keys: anybody can make a key and a quote by it")
	}
	if err := r.TPM.validateKeys(); err != nil {
		return err
	}
	if err := r.requireSHA256(); err != nil {
		return err
	}
	for _, index := range []int{0, 4} {
		if len(r.TPM.Register(index)) == 0 {
			return fmt.Errorf("no tpm pcrs.%d: without values for 0 and 4 any firmware could start any guest", index)
		}
	}
	return r.TPM.PCRs.validate("tpm")
}

// validateTPMDevice is for a TPM beside a TEE: what runs is the TEE's to prove.
func (r *Registration) validateTPMDevice() error {
	if r.TPM == nil {
		return errors.New(`devices has "tpm" but there are no tpm reference values`)
	}
	if len(r.TPM.AttestationKeys) == 0 && r.Policy == "" {
		return errors.New("no tpm attestation_keys: a TPM that nobody vouches for is never affirming, and only a policy of the workload's own can release beside it")
	}
	if err := r.TPM.validateKeys(); err != nil {
		return err
	}
	return r.TPM.PCRs.validate("tpm")
}

func (t *TPMReference) validateKeys() error {
	if len(t.AttestationKeys) > MaxAlternatives {
		return fmt.Errorf("%d tpm attestation_keys, at most %d allowed", len(t.AttestationKeys), MaxAlternatives)
	}
	for i, key := range t.AttestationKeys {
		if _, err := keyDigest(key); err != nil {
			return fmt.Errorf("tpm attestation_keys[%d]: %w", i, err)
		}
	}
	return nil
}

// requireSHA256 is for TEEs that keep the initdata's digest in a register of a TPM.
func (r *Registration) requireSHA256() error {
	for _, digest := range r.InitData {
		if !strings.HasPrefix(digest, "sha256:") {
			return fmt.Errorf("initdata digest %q: a TPM register takes sha256 only", digest)
		}
	}
	return nil
}

func (p PCRs) validate(table string) error {
	zero := strings.Repeat("0", hex.EncodedLen(sha256.Size))
	for name, list := range p {
		index, err := strconv.Atoi(name)
		if err != nil || strconv.Itoa(index) != name || index < 0 || index >= evidence.TPMRegisters {
			return fmt.Errorf("%s pcrs.%.16q: want a register from 0 to %d", table, name, evidence.TPMRegisters-1)
		}
		switch {
		case index == evidence.TPMInitDataRegister:
			return fmt.Errorf("%s pcrs.%d: this register is compared with the initdata", table, index)
		case index == 16 || index == 23:
			return fmt.Errorf("%s pcrs.%d: anybody in the guest can reset this register", table, index)
		case len(list) == 0 || len(list) > MaxAlternatives:
			return fmt.Errorf("%s pcrs.%d: %d values, want 1 to %d", table, index, len(list), MaxAlternatives)
		case (index == 0 || index == 4) && slices.Contains(list, zero):
			return fmt.Errorf("%s pcrs.%d: all zero: nothing was measured", table, index)
		}
		for _, value := range list {
			// All zero is a value here: nothing may have been extended.
			if err := checkHex(value, sha256.Size); err != nil && value != zero {
				return fmt.Errorf("%s pcrs.%d: value %.80q: %w", table, index, value, err)
			}
		}
	}
	return nil
}
