// SPDX-License-Identifier: Apache-2.0

//go:build interop

package main

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"testing"

	"github.com/casemate/casemate/rootfs/measure"
)

// TestPCR0OfDebianFirmware computes register 0 from Debian's OVMF and a recorded log, and
// compares it with what the TPM had in that boot: rootfs/measure/testdata/ovmf.
func TestPCR0OfDebianFirmware(t *testing.T) {
	const file, recorded = "/usr/share/OVMF/OVMF_CODE_4M.fd", "b157d97b1f69729514feb7f201d2cbe4957f23ab77920e361fe9f822ba49ca4c"
	log, err := os.ReadFile("../../rootfs/measure/testdata/ovmf/eventlog")
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (`make setup` installs it)", err)
	}
	if sum := sha256.Sum256(image); hex.EncodeToString(sum[:]) != recorded {
		t.Skipf("%s is of another version of Debian's package than the recorded log", file)
	}
	volumes, err := measure.ParseVolumes(image)
	if err != nil {
		t.Fatal(err)
	}
	firmware := &loggedFirmware{volumes: volumes, log: log}
	for h, want := range map[crypto.Hash]string{
		crypto.SHA256: "177e29c417b6b61c7cf46ed30b4468931f58642527a268b556254e39b941ec6a",
		crypto.SHA384: "f4428d8c085a90327e84ec8a82b582776de009bf0865b0276620545d213a7d97528e6dd8643104a1f64c67fbbd8d5e4f",
	} {
		for _, firmware.machine = range []*measure.OVMFMachine{nil, {MemoryMiB: 512, CPUs: 1}} {
			if got, err := firmware.pcr0(h); err != nil || hex.EncodeToString(got) != want {
				t.Errorf("%v on %+v: %x, %v, want %s", h, firmware.machine, got, err, want)
			}
		}
	}
	for _, m := range []measure.OVMFMachine{{MemoryMiB: 513, CPUs: 1}, {MemoryMiB: 512, CPUs: 2}, {MemoryMiB: 4096, CPUs: 1}} {
		firmware.machine = &m
		if got, err := firmware.pcr0(crypto.SHA256); !errors.Is(err, measure.ErrOtherFirmware) {
			t.Errorf("on %+v: %x, %v", m, got, err)
		}
	}
	firmware.machine = &measure.OVMFMachine{MemoryMiB: 512, CPUs: 1}
	pei := volumes.PEI
	volumes.PEI = bytes.Clone(pei)
	volumes.PEI[len(pei)/2] ^= 1
	if got, err := firmware.pcr0(crypto.SHA256); !errors.Is(err, measure.ErrUnknownPEI) {
		t.Errorf("with a flipped byte of PEI: %x, %v", got, err)
	}
	volumes.PEI, firmware.machine = pei, nil
	volumes.DXE = bytes.Clone(volumes.DXE)
	volumes.DXE[len(volumes.DXE)/2] ^= 1
	if got, err := firmware.pcr0(crypto.SHA256); !errors.Is(err, measure.ErrOtherFirmware) {
		t.Errorf("with a flipped byte: %x, %v", got, err)
	}
	for _, other := range []string{"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/ovmf/OVMF.fd"} {
		image, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		if firmware.volumes, err = measure.ParseVolumes(image); err != nil {
			t.Fatalf("%s: %v", other, err)
		}
		if got, err := firmware.pcr0(crypto.SHA256); !errors.Is(err, measure.ErrOtherFirmware) {
			t.Errorf("%s: %x, %v", other, got, err)
		}
	}
}
