// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
)

const (
	// MaxPolicySize is well above generated resource policies of a few KiB.
	MaxPolicySize = 256 << 10

	// MaxAlternatives bounds each list: a workload with more builds than this is
	// several workloads.
	MaxAlternatives = 1024

	// measurementSize is the launch digest of an SNP report, AMD 56860.
	measurementSize = 48
)

// Validate returns an error unless r is complete and pins what it must: an initdata
// digest always, a measurement for each TEE whose evidence carries one. It does not
// compile the policy; the keybroker does.
func (r *Registration) Validate() error {
	if err := r.validateForm(); err != nil {
		return err
	}
	return r.named(r.validateProof)
}

// named says in check's error which workload it is about.
func (r *Registration) named(check func() error) error {
	if err := check(); err != nil {
		return fmt.Errorf("workload %s: %w", r.ID, err)
	}
	return nil
}

func (r *Registration) validateForm() error {
	if err := CheckID(r.ID); err != nil {
		return err
	}
	if len(r.Description) > MaxDescriptionSize {
		return fmt.Errorf("workload %s: description is %d bytes, at most %d allowed", r.ID, len(r.Description), MaxDescriptionSize)
	}
	if len(r.Policy) > MaxPolicySize {
		return fmt.Errorf("workload %s: policy is %d bytes, at most %d allowed", r.ID, len(r.Policy), MaxPolicySize)
	}
	for _, check := range []func() error{r.validateTEEs, r.validateDevices, r.validateInitData, r.validateSNP, r.validateTDX, r.validateTPM, r.validateAzure, r.validateDebug} {
		if err := r.named(check); err != nil {
			return err
		}
	}
	return nil
}

func (r *Registration) validateTEEs() error {
	if len(r.TEEs) == 0 {
		return errors.New("no tees: no evidence could ever match")
	}
	for i, tee := range r.TEEs {
		if !OnSNP(tee) && !OnTDX(tee) && tee != evidence.TPM && tee != evidence.Sample {
			return fmt.Errorf("tee %q is not supported by this keybroker", tee)
		}
		if slices.Contains(r.TEEs[:i], tee) {
			return fmt.Errorf("tee %q is listed twice", tee)
		}
	}
	// Sample evidence never becomes affirming, so the built-in policy denies it.
	if r.Takes(evidence.Sample) && r.Policy == "" {
		return errors.New(`tee "sample" proves nothing and is never affirming: only a policy of the workload's own can release to it`)
	}
	return nil
}

// DebugValues reports whether the reference values for tee, or for a TPM beside it, are those of debug images.
func (r *Registration) DebugValues(tee evidence.TEE) bool {
	return OnSNP(tee) && r.SNP != nil && r.SNP.Debug ||
		OnTDX(tee) && r.TDX != nil && r.TDX.Debug ||
		OnAzure(tee) && r.Azure != nil && r.Azure.Debug ||
		(tee == evidence.TPM || r.HasDevice(evidence.TPM)) && r.TPM != nil && r.TPM.Debug
}

// validateDebug keeps values of debug images out of a workload that is not for debugging.
func (r *Registration) validateDebug() error {
	for _, tee := range r.TEEs {
		if r.DebugValues(tee) && !r.Debug {
			return fmt.Errorf("the reference values for %s are those of a debug image, which gives its host a shell: want debug = true above all tables", tee)
		}
	}
	return nil
}

func (r *Registration) validateInitData() error {
	if len(r.InitData) == 0 {
		return errors.New("no initdata digest: the guest's configuration would be the host's choice")
	}
	if len(r.InitData) > MaxAlternatives {
		return fmt.Errorf("%d initdata digests, at most %d allowed", len(r.InitData), MaxAlternatives)
	}
	for _, digest := range r.InitData {
		if err := checkDigest(digest); err != nil {
			return err
		}
	}
	return nil
}

// checkDigest accepts one spelling of each digest and no zero digest: a report whose
// HOST_DATA nobody set is all zeros.
func checkDigest(digest string) error {
	name, text, ok := strings.Cut(digest, ":")
	if !ok {
		return fmt.Errorf("initdata digest %q: want ALGORITHM:HEX", digest)
	}
	algorithm, err := evidence.ParseHashAlgorithm(name)
	if err != nil {
		return fmt.Errorf("initdata digest %q: %w", digest, err)
	}
	if err := checkHex(text, algorithm.Size()); err != nil {
		return fmt.Errorf("initdata digest %q: %w", digest, err)
	}
	return nil
}

func checkHex(text string, size int) error {
	raw, err := hex.DecodeString(text)
	if err != nil || hex.EncodeToString(raw) != text {
		return errors.New("not lower-case hex")
	}
	if len(raw) != size {
		return fmt.Errorf("%d bytes, want %d", len(raw), size)
	}
	if !slices.ContainsFunc(raw, func(b byte) bool { return b != 0 }) {
		return errors.New("all zero")
	}
	return nil
}

func (r *Registration) validateSNP() error {
	if !slices.ContainsFunc(r.TEEs, OnSNP) {
		if r.SNP != nil {
			return errors.New(`has snp reference values but tees lacks "snp" and "az-snp-vtpm"`)
		}
		return nil
	}
	if r.SNP == nil || len(r.SNP.Measurements) == 0 {
		return errors.New("no snp measurement: any guest on any firmware would match")
	}
	if len(r.SNP.Measurements) > MaxAlternatives {
		return fmt.Errorf("%d snp measurements, at most %d allowed", len(r.SNP.Measurements), MaxAlternatives)
	}
	for _, m := range r.SNP.Measurements {
		if err := checkHex(m, measurementSize); err != nil {
			return fmt.Errorf("snp measurement %q: %w", m, err)
		}
	}
	if r.SNP.MinimumTCB != nil && len(r.SNP.MinimumTCB) == 0 {
		return errors.New("snp minimum_tcb lists no product line: every platform would be refused")
	}
	for line := range r.SNP.MinimumTCB {
		if line != Milan && line != Genoa && line != Turin {
			return fmt.Errorf("snp minimum_tcb: unknown product line %q, want %s, %s or %s", line, Milan, Genoa, Turin)
		}
	}
	return nil
}
