// SPDX-License-Identifier: Apache-2.0

package eventlog

import (
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// DefaultMeasurements is where Linux 6.16 and later shows a TDX guest's registers
// (Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest).
const DefaultMeasurements = "/sys/devices/virtual/misc/tdx_guest/measurements"

// rtmr3Number is RTMR3 in an event log: index 1 is RTMR0.
const rtmr3Number = 4

const rtmr3File = "rtmr3:sha384"

type rtmr3 struct{ path string }

// OpenRTMR3 returns the register that is left to the running system, nil where the
// kernel shows none in dir.
func OpenRTMR3(dir string) (Register, error) {
	r := rtmr3{filepath.Join(dir, rtmr3File)}
	_, err := r.Value()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (rtmr3) Number() uint32    { return rtmr3Number }
func (rtmr3) Hash() crypto.Hash { return crypto.SHA384 }

func (r rtmr3) Value() ([]byte, error) {
	value, err := os.ReadFile(r.path)
	if err != nil {
		return nil, fmt.Errorf("reading RTMR3: %w", err)
	}
	if len(value) != crypto.SHA384.Size() {
		return nil, fmt.Errorf("reading RTMR3: %d bytes, want %d", len(value), crypto.SHA384.Size())
	}
	return value, nil
}

// Extend writes the digest; the kernel takes it as an extension, not as a value.
func (r rtmr3) Extend(digest []byte) error {
	if len(digest) != crypto.SHA384.Size() {
		return fmt.Errorf("extending RTMR3 by %d bytes, want %d", len(digest), crypto.SHA384.Size())
	}
	file, err := os.OpenFile(r.path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("extending RTMR3: %w", err)
	}
	_, err = file.Write(digest)
	return errors.Join(err, file.Close())
}
