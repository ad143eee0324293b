// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"encoding/binary"
	"fmt"
)

// Kinds of areas in OVMF's SNP metadata.
const (
	areaMemory       = 1
	areaSecrets      = 2
	areaCPUID        = 3
	areaSVSM         = 4
	areaKernelHashes = 0x10
)

// area is memory that the VMM prepares, and measures, before the guest starts.
type area struct {
	address, size, kind uint32
}

// snpAreas reads the SNP metadata: "ASEV", size, version, count, and count areas of
// 12 bytes, all little-endian. The order is the order of measuring.
func (f *Firmware) snpAreas() ([]area, error) {
	if _, ok := f.entries[guidSNPMetadata]; !ok {
		return nil, ErrNoSNPMetadata
	}
	const header, each = 16, 12
	b, err := f.offsetEntry(guidSNPMetadata, header)
	if err != nil {
		return nil, fmt.Errorf("finding SNP metadata: %w", err)
	}
	if string(b[:4]) != "ASEV" {
		return nil, fmt.Errorf("reading SNP metadata: signature %q, want ASEV", b[:4])
	}
	size, version, count := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if version != 1 {
		return nil, fmt.Errorf("reading SNP metadata: version %d, want 1", version)
	}
	if count == 0 || count > maxSections {
		return nil, fmt.Errorf("reading SNP metadata: %d areas, want 1 to %d", count, maxSections)
	}
	need := header + each*count
	if size < need || uint64(need) > uint64(len(b)) {
		return nil, fmt.Errorf("reading SNP metadata: %d areas in %d bytes with %d left in the image", count, size, len(b))
	}
	var areas []area
	var total uint64
	for i := range count {
		e := b[header+each*i:]
		a := area{address: binary.LittleEndian.Uint32(e), size: binary.LittleEndian.Uint32(e[4:]), kind: binary.LittleEndian.Uint32(e[8:])}
		if err := a.check(); err != nil {
			return nil, fmt.Errorf("reading SNP metadata: area %d: %w", i, err)
		}
		if total += uint64(a.size); total > maxDeclared {
			return nil, fmt.Errorf("reading SNP metadata: areas cover over %d bytes", maxDeclared)
		}
		areas = append(areas, a)
	}
	return areas, nil
}

func (a area) check() error {
	switch a.kind {
	case areaMemory, areaSVSM:
	case areaSecrets, areaCPUID, areaKernelHashes:
		if a.size != pageSize {
			return fmt.Errorf("kind %#x has %d bytes, want %d", a.kind, a.size, pageSize)
		}
	default:
		return fmt.Errorf("kind %#x is not known", a.kind)
	}
	if a.size == 0 || a.size%pageSize != 0 || a.address%pageSize != 0 || uint64(a.address)+uint64(a.size) > 1<<32 {
		return fmt.Errorf("%d bytes at %#x, want whole pages below 4 GiB", a.size, a.address)
	}
	return nil
}
