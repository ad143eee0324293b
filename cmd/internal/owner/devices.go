// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/agent/evidence"
)

// TakesDevices reports whether devices may attest beside a primary TEE. Azure's vTPM and a
// plain TPM are the one TPM that their guests have, and a report of theirs names its key.
func TakesDevices(tee evidence.TEE) bool {
	return tee == evidence.SNP || tee == evidence.TDX || tee == evidence.Sample
}

// HasDevice reports whether device is among r.Devices.
func (r *Registration) HasDevice(device evidence.TEE) bool {
	return slices.Contains(r.Devices, device)
}

func (r *Registration) validateDevices() error {
	for i, device := range r.Devices {
		if _, err := evidence.ParseDevice(string(device)); err != nil {
			return fmt.Errorf("devices: %w", err)
		}
		if slices.Contains(r.Devices[:i], device) {
			return fmt.Errorf("device %q is listed twice", device)
		}
	}
	for _, tee := range r.TEEs {
		if len(r.Devices) > 0 && !TakesDevices(tee) {
			return fmt.Errorf("devices beside tee %q: want tees snp, tdx or sample alone", tee)
		}
	}
	if r.HasDevice(evidence.SampleDevice) && r.Policy == "" {
		return errors.New(`device "sampledevice" proves nothing and is never affirming: only a policy of the workload's own can release beside it`)
	}
	return nil
}
