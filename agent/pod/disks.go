// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

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

// VolumeRoot is the directory in a Volume's Dir on which it is mounted.
const VolumeRoot = "fs"

// Bind is how the volume comes into a container.
func (v *Volume) Bind() specs.Mount {
	return specs.Mount{Destination: v.Mount, Source: filepath.Join(v.Dir, VolumeRoot), Type: "bind", Options: []string{"rbind", "rprivate", "rw", "nosuid", "nodev"}}
}

const (
	// maxDisks caps the volumes of one request.
	maxDisks = 16
	// hotplugTime is how long a disk that was added for a request may take to show up, as kata's agent waits.
	hotplugTime = 5 * time.Second
	hotplugPoll = 20 * time.Millisecond
)

// disk is a block device in a request.
type disk struct {
	path string // in the container, which the pod's file names it by
	pci  string // of a virtio disk, or
	node string // the guest's name of it
}

var (
	// pciPath is a way from the root bus through bridges, as kata writes it: slots in hexadecimal, with a function or not.
	pciPath  = regexp.MustCompile(`^[01][0-9a-f](\.[0-7])?(/[01][0-9a-f](\.[0-7])?){0,7}$`)
	nodePath = regexp.MustCompile(`^/dev/[a-z0-9]{1,32}$`)
)

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
		switch {
		case d.GetType() == "blk" && pciPath.MatchString(d.GetId()):
			got.pci = d.GetId()
		case (d.GetType() == "blk" || d.GetType() == "mmioblk") && nodePath.MatchString(d.GetVmPath()):
			got.node = d.GetVmPath()
		default:
			return nil, refused("has a type or place that is not served")
		}
		out = append(out, got)
	}
	return out, nil
}

// openDisks opens the plan's volumes, for its container alone to have them.
func (s *Service) openDisks(ctx context.Context, p *plan, e *entry) error {
	for _, d := range p.disks {
		node := d.node
		if d.pci != "" {
			var err error
			if node, err = waitForPCI(ctx, "/sys", d.pci); err != nil {
				return &Failure{Code: codes.NotFound, Phrase: fmt.Sprintf("volume %s: there is no disk at %s", quoted(d.path), d.pci), Err: err}
			}
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

// waitForPCI waits for a disk that the host has just plugged in.
func waitForPCI(ctx context.Context, sys, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, hotplugTime)
	defer cancel()
	for rescanned := false; ; rescanned = true {
		node, err := nodeOfPCI(sys, path)
		if err == nil {
			return node, nil
		}
		if !rescanned {
			// A bridge that announces nothing has to be asked. Where that is not possible the wait ends in err.
			_ = os.WriteFile(filepath.Join(sys, "bus/pci/rescan"), []byte("1"), 0o200)
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(hotplugPoll):
		}
	}
}

var errNoDisk = errors.New("there is not one virtio disk")

// nodeOfPCI follows a path from bus to bus. The kernel's own names are all that is believed.
func nodeOfPCI(sys, path string) (string, error) {
	dir, bus := filepath.Join(sys, "devices/pci0000:00"), "0000:00"
	slots := strings.Split(path, "/")
	for i, slot := range slots {
		if !strings.Contains(slot, ".") {
			slot += ".0"
		}
		dir = filepath.Join(dir, bus+":"+slot)
		if i == len(slots)-1 {
			break
		}
		next, err := onlyEntry(filepath.Join(dir, "pci_bus/*"))
		if err != nil {
			return "", err
		}
		bus = filepath.Base(next)
	}
	block, err := onlyEntry(filepath.Join(dir, "virtio*/block/*"))
	if err != nil {
		return "", err
	}
	return "/dev/" + filepath.Base(block), nil
}

func onlyEntry(pattern string) (string, error) {
	list, err := filepath.Glob(pattern)
	if err != nil || len(list) != 1 {
		return "", fmt.Errorf("%s: %d entries: %w", pattern, len(list), errNoDisk)
	}
	return list[0], nil
}
