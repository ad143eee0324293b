// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"bytes"
	"errors"
	"fmt"
)

// TPMFirmwareRegisters are PCR 0 to 7, which firmware alone extends, so that its log
// explains them whole. What runs later extends others without writing into this log.
const TPMFirmwareRegisters = 8

// startupLocality marks the event that says what PCR 0 starts from: the locality of
// TPM2_Startup in its last byte (PC Client Platform Firmware Profile section 10.4.5.3).
var startupLocality = []byte("StartupLocality\x00")

// ReplayTPMLog computes what PCR 0 to 7 hold, SHA-256, when each event of a
// crypto-agile log (TCG PC Client Platform Firmware Profile section 10.2) was extended
// into the register it names. An event for a register that a TPM does not have, one
// without exactly one SHA-256 digest, and a locality told too late are errors.
func ReplayTPMLog(raw []byte) (out [TPMFirmwareRegisters][32]byte, err error) {
	registers, err := replayTPM(raw)
	if err != nil {
		return out, fmt.Errorf("replaying event log: %w", err)
	}
	copy(out[:], registers[:])
	return out, nil
}

func replayTPM(raw []byte) (registers TPMRegisterValues, err error) {
	c, err := openLog(raw)
	if err != nil {
		return registers, err
	}
	begun := false // PCR 0 has its start value
	for n := 1; c.err == nil && !logEnds(c.rest); n++ {
		e := c.event(tpmAlgSHA256)
		if c.err != nil {
			return registers, fmt.Errorf("event %d: %w", n, c.err)
		}
		if e.kind == eventNoAction {
			if e.index == 0 && bytes.HasPrefix(e.data, startupLocality) {
				if len(e.data) != len(startupLocality)+1 || begun {
					return registers, fmt.Errorf("event %d: %w", n, errors.New("start-up locality malformed or not in front"))
				}
				registers[0][31], begun = e.data[len(startupLocality)], true
			}
			continue
		}
		if e.index >= TPMRegisters {
			return registers, fmt.Errorf("event %d: register index %d, want at most %d", n, e.index, TPMRegisters-1)
		}
		if e.digest == nil {
			return registers, fmt.Errorf("event %d: no SHA-256 digest", n)
		}
		begun = begun || e.index == 0
		registers[e.index] = ExtendTPM(registers[e.index], e.digest)
	}
	return registers, c.err
}
