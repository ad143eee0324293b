// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ErrAbsent is wrapped by every error about a device that is not there (yet).
var ErrAbsent = errors.New("there is no such device")

// errSeveral: which of two devices is meant would be the host's choice.
var errSeveral = errors.New("there is more than one such device")

// place is where a device is expected.
type place interface {
	// subsystem is whose announcements may mean it.
	subsystem() string
	// find returns the device's directory in sysfs. Errors wrap ErrAbsent where waiting helps.
	find(sys string) (string, error)
	// rescan asks buses that announce nothing themselves.
	rescan(sys string) error
}

// pciPlace is what the patterns find below a PCI function; an empty one is the function.
type pciPlace struct {
	path     pciPath
	announce string
	patterns []string
}

func (p pciPlace) subsystem() string { return p.announce }

// find goes from bus to bus. Of the names in sysfs the kernel's own are all that is believed.
func (p pciPlace) find(sys string) (string, error) {
	bus := fmt.Sprintf("0000:%02x", p.path.root)
	dir := filepath.Join(sys, "devices/pci"+bus)
	for i, s := range p.path.slots {
		dir = filepath.Join(dir, bus+":"+s.String())
		if i == len(p.path.slots)-1 {
			break
		}
		next, err := only(filepath.Join(dir, "pci_bus/*"))
		if err != nil {
			return "", err
		}
		bus = filepath.Base(next)
	}
	var patterns []string
	for _, pattern := range p.patterns {
		patterns = append(patterns, filepath.Join(dir, pattern))
	}
	return only(patterns...)
}

func (p pciPlace) rescan(sys string) error { return tell(filepath.Join(sys, "bus/pci/rescan"), "1") }

// ccwPlace is a virtio disk on a channel subsystem.
type ccwPlace struct{ id string }

func (ccwPlace) subsystem() string { return "block" }

func (c ccwPlace) find(sys string) (string, error) {
	return only(filepath.Join(sys, "bus/ccw/devices", c.id, "virtio*/block/*"))
}

func (ccwPlace) rescan(string) error { return nil }

// nodePlace is a whole disk by the kernel's name of it.
type nodePlace struct{ name string }

func (nodePlace) subsystem() string { return "block" }

func (n nodePlace) find(sys string) (string, error) {
	return only(filepath.Join(sys, "class/block", n.name))
}

func (nodePlace) rescan(string) error { return nil }

// scsiPlace is a disk of a virtio controller. The controller's own number is the kernel's to give: other hosts, of
// drives without a medium for one, may have come before it.
type scsiPlace struct{ address scsiAddress }

func (scsiPlace) subsystem() string { return "block" }

func (s scsiPlace) hosts(sys string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(sys, "class/scsi_host/host*"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, dir := range all {
		driver, err := os.ReadFile(filepath.Join(dir, "proc_name"))
		if err == nil && string(bytes.TrimSpace(driver)) == "virtio_scsi" {
			out = append(out, dir)
		}
	}
	return out, nil
}

func (s scsiPlace) find(sys string) (string, error) {
	hosts, err := s.hosts(sys)
	if err != nil {
		return "", err
	}
	found := ""
	for _, host := range hosts {
		name := fmt.Sprintf("%s:0:%d:%d", strings.TrimPrefix(filepath.Base(host), "host"), s.address.target, s.address.unit)
		disk, err := only(filepath.Join(sys, "bus/scsi/devices", name, "block/*"))
		switch {
		case errors.Is(err, ErrAbsent):
		case err != nil:
			return "", err
		case found != "":
			return "", fmt.Errorf("%s and %s: %w", found, disk, errSeveral)
		default:
			found = disk
		}
	}
	if found == "" {
		return "", fmt.Errorf("unit %d of target %d, on %d controllers: %w", s.address.unit, s.address.target, len(hosts), ErrAbsent)
	}
	return found, nil
}

func (s scsiPlace) rescan(sys string) error {
	hosts, err := s.hosts(sys)
	for _, host := range hosts {
		err = errors.Join(err, tell(filepath.Join(host, "scan"), fmt.Sprintf("0 %d %d", s.address.target, s.address.unit)))
	}
	return err
}

// tell writes to an attribute that is there.
func tell(file, text string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// only returns the one path of patterns of ours.
func only(patterns ...string) (string, error) {
	var list []string
	for _, pattern := range patterns {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		list = append(list, found...)
	}
	switch len(list) {
	case 0:
		return "", fmt.Errorf("%s: %w", strings.Join(patterns, ", "), ErrAbsent)
	case 1:
		return list[0], nil
	}
	return "", fmt.Errorf("%s: %w", strings.Join(list, ", "), errSeveral)
}
