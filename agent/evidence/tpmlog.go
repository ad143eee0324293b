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

// TPMEventRegister is the PCR of the guest's own event log. It is for the identity of the
// running system (UAPI Group, Linux TPM PCR Registry), can be reset by nobody in the guest
// and be extended from locality 0, which 17 to 22, guest-components' choice among them,
// cannot on every TPM.
const TPMEventRegister = 15

// TPMReplay is what a log explains.
type TPMReplay struct {
	// Registers are what PCR 0 to 23 hold when nothing else extended them.
	Registers TPMRegisterValues
	touched   uint32 // a bit for each register with an event
}

// Covers reports whether the log claims to explain a register whole: each of the
// firmware's when it has an event of the firmware's, and TPMEventRegister when it has one
// of the guest's.
func (r TPMReplay) Covers(index int) bool {
	const firmware = 1<<TPMFirmwareRegisters - 1
	return index < TPMFirmwareRegisters && r.touched&firmware != 0 || index == TPMEventRegister && r.touched>>index&1 != 0
}

// startupLocality marks the event that says what PCR 0 starts from: the locality of
// TPM2_Startup in its last byte (PC Client Platform Firmware Profile section 10.4.5.3).
var startupLocality = []byte("StartupLocality\x00")

// ReplayTPMLog computes what PCRs hold, SHA-256, when each event of a
// crypto-agile log (TCG PC Client Platform Firmware Profile section 10.2) was extended
// into the register it names. An event for a register that a TPM does not have, one
// without exactly one SHA-256 digest, and a locality told too late are errors.
func ReplayTPMLog(raw []byte) (TPMReplay, error) {
	r, err := replayTPM(raw)
	if err != nil {
		return TPMReplay{}, fmt.Errorf("replaying event log: %w", err)
	}
	return r, nil
}

func replayTPM(raw []byte) (r TPMReplay, err error) {
	c, err := openLog(raw)
	if err != nil {
		return r, err
	}
	registers := &r.Registers
	begun := false // PCR 0 has its start value
	for n := 1; c.err == nil && !logEnds(c.rest); n++ {
		e := c.event(tpmAlgSHA256)
		if c.err != nil {
			return r, fmt.Errorf("event %d: %w", n, c.err)
		}
		if e.kind == eventNoAction {
			if e.index == 0 && bytes.HasPrefix(e.data, startupLocality) {
				if len(e.data) != len(startupLocality)+1 || begun {
					return r, fmt.Errorf("event %d: %w", n, errors.New("start-up locality malformed or not in front"))
				}
				registers[0][31], begun = e.data[len(startupLocality)], true
			}
			continue
		}
		if e.index >= TPMRegisters {
			return r, fmt.Errorf("event %d: register index %d, want at most %d", n, e.index, TPMRegisters-1)
		}
		if e.digest == nil {
			return r, fmt.Errorf("event %d: no SHA-256 digest", n)
		}
		begun = begun || e.index == 0
		registers[e.index] = ExtendTPM(registers[e.index], e.digest)
		r.touched |= 1 << e.index
	}
	return r, c.err
}
