// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent/api/kata"
)

// known is a set of device paths that are volumes.
type known []string

func (k known) Known(path string) bool {
	for _, p := range k {
		if p == path {
			return true
		}
	}
	return false
}

func (known) Open(context.Context, string, string) (*Volume, error) { return nil, errors.New("no") }

// TestDisks: of the host's devices none but the volumes is taken, and their places are no paths of the host's choice.
func TestDisks(t *testing.T) {
	s := &Service{cfg: Config{Volumes: known{"/dev/claim", "/dev/b"}}}
	device := func(id, kind, vm, path string) *kata.Device {
		return &kata.Device{Id: id, Type: kind, VmPath: vm, ContainerPath: path}
	}
	for name, tt := range map[string]struct {
		list []*kata.Device
		want []disk // nil is refused
	}{
		"PCI":                    {[]*kata.Device{device("02/0a", "blk", "", "/dev/claim")}, []disk{{path: "/dev/claim", pci: "02/0a"}}},
		"PCI with a function":    {[]*kata.Device{device("1f.7", "blk", "", "/dev/claim")}, []disk{{path: "/dev/claim", pci: "1f.7"}}},
		"MMIO":                   {[]*kata.Device{device("x", "mmioblk", "/dev/vdc", "/dev/claim")}, []disk{{path: "/dev/claim", node: "/dev/vdc"}}},
		"two":                    {[]*kata.Device{device("02", "blk", "", "/dev/claim"), device("03", "blk", "", "/dev/b")}, []disk{{path: "/dev/claim", pci: "02"}, {path: "/dev/b", pci: "03"}}},
		"one twice":              {[]*kata.Device{device("02", "blk", "", "/dev/claim"), device("03", "blk", "", "/dev/claim")}, nil},
		"not a volume":           {[]*kata.Device{device("02", "blk", "", "/dev/other")}, nil},
		"no path":                {[]*kata.Device{device("02", "blk", "", "")}, nil},
		"SCSI":                   {[]*kata.Device{device("0:0", "scsi", "", "/dev/claim")}, nil},
		"VFIO":                   {[]*kata.Device{device("02", "vfio-pci", "", "/dev/claim")}, nil},
		"path that escapes":      {[]*kata.Device{device("..", "blk", "", "/dev/claim")}, nil},
		"path that escapes late": {[]*kata.Device{device("02/../..", "blk", "", "/dev/claim")}, nil},
		"node elsewhere":         {[]*kata.Device{device("", "blk", "/dev/../etc/x", "/dev/claim")}, nil},
		"node of a mapping":      {[]*kata.Device{device("", "blk", "/dev/mapper/root", "/dev/claim")}, nil},
		"many":                   {make([]*kata.Device, maxDisks+1), nil},
	} {
		got, err := s.parseDisks(tt.list)
		if !reflect.DeepEqual(got, tt.want) || (err == nil) != (tt.want != nil) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	if _, err := (&Service{}).parseDisks([]*kata.Device{device("02", "blk", "", "/dev/claim")}); err == nil {
		t.Error("a volume where none are served")
	}
}

// TestNodeOfPCI follows bridges in a tree like sysfs.
func TestNodeOfPCI(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{
		"0000:00:02.0/pci_bus/0000:01", "0000:00:02.0/0000:01:0a.0/virtio3/block/vdb", "0000:00:03.0/virtio1/block/vda",
		"0000:00:04.0/virtio2/net/eth0", "0000:00:05.0/virtio4/block/vdc", "0000:00:05.0/virtio5/block/vdd",
	} {
		if err := os.MkdirAll(filepath.Join(sys, "devices/pci0000:00", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{"02/0a": "/dev/vdb", "03": "/dev/vda", "03.0": "/dev/vda", "02": "", "04": "", "05": "", "06": "", "03/01": ""} {
		if got, err := nodeOfPCI(sys, path); got != want || errors.Is(err, errNoDisk) != (want == "") {
			t.Errorf("%s: got %q, %v, want %q", path, got, err, want)
		}
	}
}

// TestAddVolumes: the volume goes where configuration says, over what the request has there; its device does not reach
// the container, and another container's volume cannot be named as a mount source.
func TestAddVolumes(t *testing.T) {
	p := &plan{disks: []disk{{path: "/dev/claim"}}, opened: []*Volume{{Dir: "/run/casemate/volumes/data", Mount: "/data"}}}
	spec := func(source string) *specs.Spec {
		return &specs.Spec{Mounts: []specs.Mount{{Destination: "/data", Source: source}}, Linux: &specs.Linux{
			Devices:   []specs.LinuxDevice{{Path: "/dev/claim"}, {Path: "/dev/null"}},
			Resources: &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "b"}, {Allow: true, Type: "c"}}},
		}}
	}
	s := spec("/run/kata-containers/x")
	if err := p.addVolumes(s); err != nil {
		t.Fatal(err)
	}
	last := s.Mounts[len(s.Mounts)-1]
	if len(s.Linux.Devices) != 1 || len(s.Linux.Resources.Devices) != 1 || len(s.Mounts) != 2 || last.Destination != "/data" || last.Source != "/run/casemate/volumes/data/fs" {
		t.Errorf("got %+v", s)
	}
	for _, source := range []string{"/run/casemate/volumes/data/fs", "/run/casemate/volumes/data", "/run/casemate/./volumes/data/fs/etc"} {
		if err := p.addVolumes(spec(source)); err == nil || !strings.Contains(err.Error(), "mount source") {
			t.Errorf("%s: got %v", source, err)
		}
	}
}
