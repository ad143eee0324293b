// SPDX-License-Identifier: Apache-2.0

//go:build interop

package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"testing"
)

// recordedFirmware is the SHA-256 of Debian's OVMF_CODE_4M.fd that testdata/ovmf is of.
const recordedFirmware = "b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c"

// TestPEIVolumeHoldsTheMachine shows why register 0 does not follow from the firmware's
// file: the recorded boot measured the file's PEI volume with what OVMF had
// noted in it about the machine, in the variables of its module PlatformPei, and with nothing
// else changed.
func TestPEIVolumeHoldsTheMachine(t *testing.T) {
	image, err := os.ReadFile(firmwareCode)
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	if sum := sha256.Sum256(image); hex.EncodeToString(sum[:]) != recordedFirmware {
		t.Skipf("%s is of another version of Debian's package than the recorded log", firmwareCode)
	}
	v, err := ParseVolumes(image)
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile("testdata/ovmf/eventlog")
	if err != nil {
		t.Fatal(err)
	}
	logged := func(volume []byte) bool {
		sum := sha256.Sum256(volume)
		return bytes.Contains(log, sum[:])
	}
	if !logged(v.DXE) {
		t.Error("the log does not have the file's DXE volume")
	}
	if logged(v.PEI) {
		t.Error("the log has the file's PEI volume as it is")
	}
	volume := bytes.Clone(v.PEI)
	for at, text := range map[int]string{
		0xe0d8: "c029",             // the host bridge: q35
		0xe0e7: "01",               // the machine can suspend to RAM
		0xe0ec: "0000000010000000", // the first address that is never used
		0xe0f4: "28",               // bits of physical addresses: 40
		0xe0f5: "00000080",         // where memory is not cached any more
		0xe106: "00000000e0000000", // PCI's 64-bit window, its address and size
		0xe10e: "0000000020000000",
		0xe116: "000000c00000003c",                 // PCI's 32-bit window
		0xe11e: "006000000000000000a0000000000000", // PCI's ports
		0xe136: "0100000001000000",                 // processors that are there, and that there may be
		0xe13e: "40000000",                         // the default for them
		0xe142: "0080f71f00800800",                 // reserved for resuming, at the end of 512 MiB, for one processor
		0xe14a: "0101",                             // QEMU's fw_cfg is there, with DMA
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		copy(volume[at:], b)
	}
	if !logged(volume) {
		t.Error("the PEI volume with the machine in it is not what the log has")
	}
}
