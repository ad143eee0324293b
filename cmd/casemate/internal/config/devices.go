// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"slices"

	"github.com/casemate/casemate/agent/evidence"
)

func (m Measured) checkDevices() error {
	for i, device := range m.Devices {
		if _, err := evidence.ParseDevice(string(device)); err != nil {
			return fmt.Errorf("devices: %w", err)
		}
		if slices.Contains(m.Devices[:i], device) {
			return fmt.Errorf("devices: %s is listed twice", device)
		}
	}
	if len(m.Devices) > 0 && m.TEE == evidence.TPM {
		return errors.New(`devices: beside tee = "tpm" nothing would bind them`)
	}
	return nil
}
