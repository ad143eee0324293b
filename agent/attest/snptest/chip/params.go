// SPDX-License-Identifier: Apache-2.0

package chip

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"github.com/casemate/casemate/agent/evidence"
)

// Params is what reports say of the machine and the guest. Byte strings are hex; an
// empty one stands for zeros.
type Params struct {
	Product     string `toml:"product"`     // "Milan" (default), "Genoa" or "Turin"
	Version     uint32 `toml:"version"`     // 3 (default), 4 or 5
	Measurement string `toml:"measurement"` // 48 bytes
	HostData    string `toml:"host_data"`   // 32 bytes
	Policy      uint64 `toml:"policy"`      // 0 means 0x30000: SMT allowed, no debug
	VMPL        uint32 `toml:"vmpl"`
	ChipID      string `toml:"chip_id"` // 64 bytes; Turin uses the first 8
	TCB         TCB    `toml:"tcb"`     // all four TCB versions of the report
}

// TCB is the security version of each part of the firmware.
type TCB struct {
	FMC        uint8 `toml:"fmc"` // Turin only
	Bootloader uint8 `toml:"bootloader"`
	TEE        uint8 `toml:"tee"`
	SNP        uint8 `toml:"snp"`
	Microcode  uint8 `toml:"microcode"`
}

const (
	defaultPolicy  = 1<<17 | 1<<16 // bit 17 must be one, bit 16 allows SMT
	defaultVersion = 3
	keyInfoVCEK    = 0 // signed by the VCEK, chip id not masked
	ecdsaP384      = 1
)

// CPU returns family, model and the stepping name of the certificate's product.
func (p Params) CPU() (family, model byte, name string, err error) {
	switch p.Product {
	case "", string(evidence.Milan):
		return 0x19, 0x01, "Milan-B0", nil
	case string(evidence.Genoa):
		return 0x19, 0x11, "Genoa-B0", nil
	case string(evidence.Turin):
		return 0x1A, 0x02, "Turin-B0", nil
	}
	return 0, 0, "", fmt.Errorf("unknown product %.32q", p.Product)
}

// hexField decodes exactly size bytes, or zeros for nothing.
func hexField(name, text string, size int) ([]byte, error) {
	if text == "" {
		return make([]byte, size), nil
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(b) != size {
		return nil, fmt.Errorf("%s is %d bytes, want %d", name, len(b), size)
	}
	return b, nil
}

// HardwareID returns the id of the chip as the VCEK carries it: 64 bytes, 8 on Turin.
func (p Params) HardwareID() ([]byte, error) {
	id, err := hexField("chip_id", p.ChipID, 64)
	if err == nil && p.Product == string(evidence.Turin) {
		id = id[:8]
	}
	return id, err
}

// Check says whether reports can be made of p.
func (p Params) Check() error {
	_, err := p.unsigned([64]byte{})
	return err
}

// unsigned lays a report out, AMD publication 56860, without its signature.
func (p Params) unsigned(reportData [64]byte) ([]byte, error) {
	family, model, _, err := p.CPU()
	if err != nil {
		return nil, err
	}
	raw := make([]byte, evidence.SNPReportSize)
	version, policy := p.Version, p.Policy
	if version == 0 {
		version = defaultVersion
	}
	if policy == 0 {
		policy = defaultPolicy
	}
	le := binary.LittleEndian
	le.PutUint32(raw[0x00:], version)
	le.PutUint64(raw[0x08:], policy)
	le.PutUint32(raw[0x30:], p.VMPL)
	le.PutUint32(raw[0x34:], ecdsaP384)
	le.PutUint32(raw[0x48:], keyInfoVCEK)
	copy(raw[0x50:], reportData[:])
	for _, f := range []struct {
		name, text string
		at, size   int
	}{{"measurement", p.Measurement, 0x90, 48}, {"host_data", p.HostData, 0xC0, 32}, {"chip_id", p.ChipID, 0x1A0, 64}} {
		b, err := hexField(f.name, f.text, f.size)
		if err != nil {
			return nil, err
		}
		copy(raw[f.at:], b)
	}
	for _, at := range []int{0x38, 0x180, 0x1E0, 0x1F0} {
		p.putTCB(raw[at:])
	}
	raw[0x188], raw[0x189] = family, model
	copy(raw[0x1E8:], []byte{0, 55, 1}) // firmware 1.55.0, current and committed
	copy(raw[0x1EC:], []byte{0, 55, 1})
	return raw, nil
}

func (p Params) putTCB(b []byte) {
	t := p.TCB
	if p.Product == string(evidence.Turin) {
		b[0], b[1], b[2], b[3], b[7] = t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode
		return
	}
	b[0], b[1], b[6], b[7] = t.Bootloader, t.TEE, t.SNP, t.Microcode
}
