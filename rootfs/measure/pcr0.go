// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto"
	"encoding/binary"
	"errors"
	"fmt"
)

// Types of events in a TPM's log, TCG PC Client Platform Firmware Profile, 10.4.1.
const (
	eventSeparator   = 0x4
	eventCRTMVersion = 0x8
	eventFirmware    = 0x80000008 // EV_EFI_PLATFORM_FIRMWARE_BLOB
)

// ErrOtherFirmware says that a log is not one of the firmware whose file was given.
var ErrOtherFirmware = errors.New("the log is of another firmware")

// FirmwareEvent is an event of register 0 in a TPM's log.
type FirmwareEvent struct {
	// Type is its type.
	Type uint32

	// Digest is what was extended into the bank, by the bank's hash.
	Digest []byte

	// Data says what was measured, and for some types is it.
	Data []byte
}

// PCR0 computes register 0 of the bank of h, SHA-256 or SHA-384, from the events that a boot of this
// firmware has logged for it: the CRTM's version, the two volumes and a separator, no
// more. What the file has is compared: the DXE volume, the sizes of both, and the order. The
// PEI volume has the machine's memory and processors in it when it is measured, at places
// that the file does not tell: with a machine its digest has to be that of the file's volume with
// the machine in it, where the places are known, else ErrUnknownPEI; without one it is taken
// from the log. A log that differs is ErrOtherFirmware.
func (v *FirmwareVolumes) PCR0(events []FirmwareEvent, machine *OVMFMachine, h crypto.Hash) ([]byte, error) {
	if h != crypto.SHA256 && h != crypto.SHA384 {
		return nil, fmt.Errorf("bank of %v, want SHA-256 or SHA-384", h)
	}
	sum := func(data []byte) []byte {
		d := h.New()
		d.Write(data)
		return d.Sum(nil)
	}
	r := newRegister(h)
	want := []uint32{eventCRTMVersion, eventFirmware, eventFirmware, eventSeparator}
	if len(events) != len(want) {
		return nil, fmt.Errorf("register 0: %d events, want %d: %w", len(events), len(want), ErrOtherFirmware)
	}
	for i, e := range events {
		if e.Type != want[i] {
			return nil, fmt.Errorf("register 0, event %d: type %#x, want %#x: %w", i, e.Type, want[i], ErrOtherFirmware)
		}
		if len(e.Digest) != h.Size() {
			return nil, fmt.Errorf("register 0, event %d: digest of %d bytes, want %d", i, len(e.Digest), h.Size())
		}
		var digest []byte
		switch i {
		case 0, 3: // the data itself is measured
			digest = sum(e.Data)
		case 1:
			if err := checkBlob(e.Data, v.PEI); err != nil {
				return nil, fmt.Errorf("register 0, the PEI volume: %w", err)
			}
			if machine != nil {
				if err := v.explain(*machine, h, e.Digest); err != nil {
					return nil, fmt.Errorf("register 0: %w", err)
				}
			}
			digest = e.Digest
		case 2:
			if err := checkBlob(e.Data, v.DXE); err != nil {
				return nil, fmt.Errorf("register 0, the DXE volume: %w", err)
			}
			digest = sum(v.DXE)
		}
		if !bytes.Equal(e.Digest, digest) {
			return nil, fmt.Errorf("register 0, event %d: digest %x, the firmware has %x: %w", i, e.Digest, digest, ErrOtherFirmware)
		}
		r.extend(digest)
	}
	if !bytes.Equal(events[3].Data, make([]byte, 4)) {
		return nil, fmt.Errorf("register 0: separator %x, want zeros", events[3].Data)
	}
	return r.value, nil
}

// checkBlob compares the size that an event says, after the address.
func checkBlob(data, volume []byte) error {
	const blobSize = 16
	if len(data) != blobSize {
		return fmt.Errorf("%d bytes, want an address and a size", len(data))
	}
	if size := binary.LittleEndian.Uint64(data[8:]); size != uint64(len(volume)) {
		return fmt.Errorf("%d bytes, the file's has %d: %w", size, len(volume), ErrOtherFirmware)
	}
	return nil
}
