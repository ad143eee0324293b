// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// CPUSignature is the family, model and stepping of a virtual processor as CPUID leaf
// 1 has them in EAX. It is in each processor's measured first state.
type CPUSignature uint32

// cpuModels are QEMU's names with the identity that QEMU gives them. All versions of
// a model (-v1, -v2, ...) have the same one.
func cpuModels() map[string]CPUSignature {
	return map[string]CPUSignature{
		"EPYC":       signature(0x17, 0x01, 2),
		"EPYC-Rome":  signature(0x17, 0x31, 0),
		"EPYC-Milan": signature(0x19, 0x01, 1),
		"EPYC-Genoa": signature(0x19, 0x11, 0),
	}
}

// ParseCPU takes a CPU type of QEMU, as EPYC-v4, EPYC-Milan or EPYC-Genoa-v1, or for
// any other type the signature itself: 0x and hex.
func ParseCPU(name string) (CPUSignature, error) {
	if digits, ok := strings.CutPrefix(name, "0x"); ok {
		v, err := strconv.ParseUint(digits, 16, 32)
		if err != nil || v == 0 {
			return 0, fmt.Errorf("CPU signature %q: want 0x and up to 8 hex digits, not zero", name)
		}
		return CPUSignature(v), nil
	}
	model := name
	if i := strings.LastIndex(name, "-v"); i >= 0 {
		if n, err := strconv.ParseUint(name[i+2:], 10, 8); err != nil || n == 0 {
			return 0, fmt.Errorf("CPU type %q: bad version", name)
		}
		model = name[:i]
	}
	if s, ok := cpuModels()[model]; ok {
		return s, nil
	}
	var known []string
	for m := range cpuModels() {
		known = append(known, m)
	}
	slices.Sort(known)
	return 0, fmt.Errorf("CPU type %q is not known, want one of %s or a signature as 0xa00f11", name, strings.Join(known, ", "))
}

// signature packs the fields; a family above 15 goes into the extended field.
func signature(family, model, stepping uint32) CPUSignature {
	low, extended := family, uint32(0)
	if family > 0xf {
		low, extended = 0xf, family-0xf
	}
	return CPUSignature(extended<<20 | model>>4<<16 | low<<8 | model&0xf<<4 | stepping)
}
