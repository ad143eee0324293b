// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Drivers whose devices can be waited for, as kata names them. Net is an interface: kata's requests give its path without
// a driver.
const (
	Block    = "blk"      // virtio disk: PCI path or node
	BlockCCW = "blk-ccw"  // virtio disk on a channel subsystem: bus id
	BlockMem = "mmioblk"  // virtio disk on a memory-mapped bus: node
	NVDIMM   = "nvdimm"   // persistent memory: node
	SCSI     = "scsi"     // disk of a virtio SCSI controller: target and unit
	VFIO     = "vfio-pci" // any PCI function: PCI path
	Net      = "net"      // network interface: PCI path
)

// ErrAddress is wrapped by every error about an address of the wrong form.
var ErrAddress = errors.New("no address of this guest's devices")

// maxBridges caps the length of a PCI path: a bus number is a byte, and kata puts two bridges into a path.
const maxBridges = 8

// Caps of a SCSI address: kata counts up to 255 targets, and a unit number in flat form has 14 bits.
const (
	maxTarget = 255
	maxUnit   = 1<<14 - 1
)

// slot is a PCI function on its bus.
type slot struct{ device, function uint8 }

func (s slot) String() string { return fmt.Sprintf("%02x.%x", s.device, s.function) }

// pciPath is the way to a PCI function: the slot of each bridge from the root bus on, and its own.
type pciPath struct {
	root  uint8 // the root bus's number
	slots []slot
}

// parsePCIPath reads kata's form: SS[.F], in hexadecimal and lower case, joined by slashes. A first part above 1f is the
// number of a root bus beside the first, which machines with several memory nodes have.
func parsePCIPath(text string) (pciPath, error) {
	bad := func(why string) (pciPath, error) {
		return pciPath{}, fmt.Errorf("PCI path %.60q: %s: %w", text, why, ErrAddress)
	}
	if len(text) > (maxBridges+1)*len("1f.7/") {
		return bad("too long")
	}
	var p pciPath
	for i, part := range strings.Split(text, "/") {
		device, function, dotted := strings.Cut(part, ".")
		n, ok := hexByte(device)
		switch {
		case !ok:
			return bad("want slots of two hexadecimal digits")
		case n > 0x1f && i == 0 && !dotted:
			p.root = n
			continue
		case n > 0x1f:
			return bad("a bus has slots 00 to 1f")
		}
		s := slot{device: n}
		if dotted {
			if len(function) != 1 || function[0] < '0' || function[0] > '7' {
				return bad("a slot has functions 0 to 7")
			}
			s.function = function[0] - '0'
		}
		p.slots = append(p.slots, s)
	}
	if len(p.slots) == 0 || len(p.slots) > maxBridges {
		return bad(fmt.Sprintf("want 1 to %d slots", maxBridges))
	}
	return p, nil
}

// hexByte reads two digits of the form that is written, so that one place has one name.
func hexByte(s string) (uint8, bool) {
	n, err := strconv.ParseUint(s, 16, 8)
	return uint8(n), err == nil && len(s) == 2 && strings.ToLower(s) == s && s[0] != '+'
}

// ParseFunction reads the address of a PCI function, DDDD:BB:SS.F, and returns it as it was given. Domain, bus and slot
// are hexadecimal digits in lower case.
func ParseFunction(text string) (string, error) {
	if !function.MatchString(text) {
		return "", fmt.Errorf("PCI address %.40q: want DDDD:BB:SS.F: %w", text, ErrAddress)
	}
	return text, nil
}

var (
	function = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)
	ccwID    = regexp.MustCompile(`^[0-9a-f]\.[0-3]\.[0-9a-f]{4}$`)
	nodes    = map[string]*regexp.Regexp{
		Block:    regexp.MustCompile(`^/dev/((vd|sd)[a-z]{1,3})$`),
		BlockMem: regexp.MustCompile(`^/dev/(vd[a-z]{1,3})$`),
		NVDIMM:   regexp.MustCompile(`^/dev/(pmem[0-9]{1,3})$`),
	}
)

// nodeName is the name below /dev.
func nodeName(driver, text string) (string, error) {
	m := nodes[driver].FindStringSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("node %.60q: none of driver %s: %w", text, driver, ErrAddress)
	}
	return m[1], nil
}

// scsiAddress is a target's number and the unit's on it.
type scsiAddress struct{ target, unit int }

// parseSCSI reads "TARGET:UNIT" in decimal.
func parseSCSI(text string) (scsiAddress, error) {
	target, unit, _ := strings.Cut(text, ":")
	t, u := decimal(target, maxTarget), decimal(unit, maxUnit)
	if t < 0 || u < 0 {
		return scsiAddress{}, fmt.Errorf("SCSI address %.40q: want TARGET:UNIT, at most %d:%d: %w", text, maxTarget, maxUnit, ErrAddress)
	}
	return scsiAddress{t, u}, nil
}

// decimal returns -1 for anything but the usual form of a number up to limit.
func decimal(s string, limit int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > limit || strconv.Itoa(n) != s {
		return -1
	}
	return n
}

// Check says whether an address has the form of its driver's. Nothing is looked for. Errors wrap [ErrAddress].
func Check(driver, address string) error {
	_, err := parse(driver, address)
	return err
}

func parse(driver, address string) (place, error) {
	switch {
	case slices.Contains([]string{Block, BlockMem, NVDIMM}, driver) && strings.HasPrefix(address, "/"):
		name, err := nodeName(driver, address)
		return nodePlace{name}, err
	case driver == Block:
		p, err := parsePCIPath(address)
		return pciPlace{p, "block", []string{"virtio*/block/*"}}, err
	case driver == Net:
		p, err := parsePCIPath(address)
		return pciPlace{p, "net", []string{"virtio*/net/*", "net/*"}}, err
	case driver == VFIO:
		p, err := parsePCIPath(address)
		return pciPlace{p, "pci", []string{""}}, err
	case driver == BlockCCW:
		if !ccwID.MatchString(address) {
			return nil, fmt.Errorf("channel path %.40q: want C.S.DDDD: %w", address, ErrAddress)
		}
		return ccwPlace{address}, nil
	case driver == SCSI:
		a, err := parseSCSI(address)
		return scsiPlace{a}, err
	}
	return nil, fmt.Errorf("driver %.40q with address %.40q: %w", driver, address, ErrAddress)
}
