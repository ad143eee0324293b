// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
)

// Volumes opens the persistent volumes that measured configuration names.
type Volumes interface {
	// Known reports whether path, the device path in a container's request, means a volume.
	Known(path string) bool
	// Open maps the volume that path means from the block device node and mounts it. Containers that ask for the same
	// volume share it.
	Open(ctx context.Context, path, node string) (*Volume, error)
}

// Volume is a mounted volume while a container has it.
type Volume struct {
	Dir   string // nothing else lies in it
	Mount string // in the container, from measured configuration
	// Close gives it up; the last one unmounts.
	Close func() error
}

// Devices waits for devices that the host plugs into the running guest.
type Devices interface {
	// Check says whether an address has the form of a driver's ("blk", "blk-ccw", "mmioblk", "nvdimm", "scsi", "net", "vfio-pci").
	// Nothing is looked for.
	Check(driver, address string) error
	// Wait returns the node of the disk there, the name of the interface, or of "vfio-pci" the PCI function's address. It
	// gives up after a time of its own.
	Wait(ctx context.Context, driver, address string) (string, error)
	// Bind takes PCI functions from the guest's drivers and returns the node by which a program drives them and no other.
	// An error with a method Stranger() string names another that it would drive.
	Bind(ctx context.Context, functions []string) (specs.LinuxDevice, error)
}

// VolumeRoot is the directory in a Volume's Dir on which it is mounted.
const VolumeRoot = "fs"

// Bind is how the volume comes into a container.
func (v *Volume) Bind() specs.Mount {
	return specs.Mount{Destination: v.Mount, Source: filepath.Join(v.Dir, VolumeRoot), Type: "bind", Options: []string{"rbind", "rprivate", "rw", "nosuid", "nodev"}}
}

// maxDisks caps the volumes of one request.
const maxDisks = 16

// disk is a block device in a request.
type disk struct {
	path    string // in the container, which the pod's file names it by
	driver  string
	address string // where the guest finds it, in the driver's form
}

// addressOf is where a request's device says that it is: kata's drivers take one of two fields.
func (s *Service) addressOf(d *kata.Device) (address string, ok bool) {
	if s.cfg.Devices == nil {
		return "", false
	}
	switch d.GetType() {
	case "blk":
		address = d.GetId()
		if s.cfg.Devices.Check(d.GetType(), address) != nil {
			address = d.GetVmPath()
		}
	case "blk-ccw", "scsi":
		address = d.GetId()
	case "mmioblk", "nvdimm":
		address = d.GetVmPath()
	default:
		return "", false
	}
	return address, s.cfg.Devices.Check(d.GetType(), address) == nil
}

// diskAt is a storage's disk, if the address has one of the forms of the driver's.
func (s *Service) diskAt(driver, address string) (disk, bool) {
	if s.cfg.Devices == nil || s.cfg.Devices.Check(driver, address) != nil {
		return disk{}, false
	}
	return disk{driver: driver, address: address}, true
}

// parseDisks takes the request's devices that are volumes and refuses any other: a device of the host is not passed on.
func (s *Service) parseDisks(list []*kata.Device) ([]disk, error) {
	var out []disk
	if len(list) > maxDisks {
		return nil, fail(codes.InvalidArgument, "%d devices, at most %d", len(list), maxDisks)
	}
	for _, d := range list {
		got := disk{path: d.GetContainerPath()}
		refused := func(what string) error {
			return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: devices: device %s %s", quoted(got.path), what)
		}
		if s.cfg.Volumes == nil || !s.cfg.Volumes.Known(got.path) {
			return nil, refused("is no volume of this guest's; devices of the host are not passed on")
		}
		if slices.ContainsFunc(out, func(o disk) bool { return o.path == got.path }) {
			return nil, refused("is named twice")
		}
		var ok bool
		if got.address, ok = s.addressOf(d); !ok {
			return nil, refused("has a type or place that is not served")
		}
		got.driver = d.GetType()
		out = append(out, got)
	}
	return out, nil
}

// openDisks opens the plan's volumes, for its container alone to have them.
func (s *Service) openDisks(ctx context.Context, p *plan, e *entry) error {
	for _, d := range p.disks {
		node, err := s.cfg.Devices.Wait(ctx, d.driver, d.address)
		if err != nil {
			return &Failure{Code: codes.NotFound, Phrase: fmt.Sprintf("volume %s: there is no disk at %s", quoted(d.path), d.address), Err: err}
		}
		v, err := s.cfg.Volumes.Open(ctx, d.path, node)
		if err != nil {
			return &Failure{Code: codes.PermissionDenied, Phrase: fmt.Sprintf("volume %s could not be opened", quoted(d.path)), Err: err}
		}
		e.undo = append(e.undo, v.Close)
		p.opened = append(p.opened, v)
	}
	return nil
}

// addVolumes puts the volumes where measured configuration says, over whatever the request has there, and takes their
// devices out: a container gets no block device. The request itself cannot name their directories.
func (p *plan) addVolumes(s *specs.Spec) error {
	s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(d specs.LinuxDevice) bool {
		return slices.ContainsFunc(p.disks, func(v disk) bool { return v.path == d.Path })
	})
	// Rules for block devices come with them; package container makes its own.
	s.Linux.Resources.Devices = slices.DeleteFunc(s.Linux.Resources.Devices, func(r specs.LinuxDeviceCgroup) bool {
		return len(p.disks) > 0 && r.Allow && r.Type == "b"
	})
	for _, v := range p.opened {
		for _, m := range s.Mounts {
			if source := filepath.Clean(m.Source) + "/"; strings.HasPrefix(source, v.Dir+"/") {
				return fail(codes.PermissionDenied, "CreateContainerRequest is blocked by policy: mount source %s", quoted(m.Source))
			}
		}
	}
	for _, v := range p.opened {
		s.Mounts = append(s.Mounts, v.Bind())
	}
	return nil
}
