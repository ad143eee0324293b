// SPDX-License-Identifier: Apache-2.0

//go:build interop

package measure

import (
	"errors"
	"os"
	"testing"
)

// TestDebianMRTD takes Debian's OVMF, whose variables and code are the two halves of
// the image that a TD starts with.
func TestDebianMRTD(t *testing.T) {
	var image []byte
	for _, name := range []string{"/usr/share/OVMF/OVMF_VARS.fd", "/usr/share/OVMF/OVMF_CODE.fd"} {
		part, err := os.ReadFile(name)
		if err != nil {
			t.Fatalf("%v (`make setup` installs it)", err)
		}
		image = append(image, part...)
	}
	checkMRTD(t, image)

	larger, err := os.ReadFile(firmwareCode)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFirmware(larger)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.MRTD(ExtendEachPage); !errors.Is(err, ErrNoTDVF) {
		t.Errorf("OVMF without TDX: got %v", err)
	}
}
