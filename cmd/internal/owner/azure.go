// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"slices"

	"github.com/casemate/casemate/agent/evidence"
)

// AzureReference are the reference values for the vTPM that Azure's paravisor keeps. Its
// key needs no list: the hardware's report names it. Measurements of the paravisor stand
// under SNP or TDX.
type AzureReference struct {
	// PCRs are as in TPMReference; only 4, what the firmware started, is required: the
	// firmware is part of the paravisor's measurement.
	PCRs PCRs `toml:"pcrs" json:"pcrs"`
	// Debug says that these are the values of debug images, as in SNPReference.
	Debug bool `toml:"debug,omitempty" json:"debug,omitempty"`
}

// OnSNP reports whether SEV-SNP protects a guest of tee.
func OnSNP(tee evidence.TEE) bool { return tee == evidence.SNP || tee == evidence.AzSNPvTPM }

// OnTDX reports whether TDX protects a guest of tee.
func OnTDX(tee evidence.TEE) bool { return tee == evidence.TDX || tee == evidence.AzTDXvTPM }

// OnAzure reports whether tee is a guest below Azure's paravisor.
func OnAzure(tee evidence.TEE) bool { return tee == evidence.AzSNPvTPM || tee == evidence.AzTDXvTPM }

func (r *Registration) validateAzure() error {
	if !slices.ContainsFunc(r.TEEs, OnAzure) {
		if r.Azure != nil {
			return errors.New(`has azure reference values but tees lacks "az-snp-vtpm" and "az-tdx-vtpm"`)
		}
		return nil
	}
	if r.Azure == nil || len(r.Azure.PCRs.Register(4)) == 0 {
		return errors.New("no azure pcrs.4: the measured paravisor starts whatever lies on the disk")
	}
	if err := r.requireSHA256(); err != nil {
		return err
	}
	return r.Azure.PCRs.validate("azure")
}
