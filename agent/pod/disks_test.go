// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/hotplug"
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
	s := &Service{cfg: Config{Volumes: known{"/dev/claim", "/dev/b"}, Devices: missing{}}}
	device := func(id, kind, vm, path string) *kata.Device {
		return &kata.Device{Id: id, Type: kind, VmPath: vm, ContainerPath: path}
	}
	for name, tt := range map[string]struct {
		list []*kata.Device
		want []disk // nil is refused
	}{
		"PCI":                    {[]*kata.Device{device("02/0a", "blk", "", "/dev/claim")}, []disk{{"/dev/claim", "blk", "02/0a"}}},
		"PCI with a function":    {[]*kata.Device{device("1f.7", "blk", "", "/dev/claim")}, []disk{{"/dev/claim", "blk", "1f.7"}}},
		"MMIO":                   {[]*kata.Device{device("x", "mmioblk", "/dev/vdc", "/dev/claim")}, []disk{{"/dev/claim", "mmioblk", "/dev/vdc"}}},
		"two":                    {[]*kata.Device{device("02", "blk", "", "/dev/claim"), device("03", "blk", "", "/dev/b")}, []disk{{"/dev/claim", "blk", "02"}, {"/dev/b", "blk", "03"}}},
		"one twice":              {[]*kata.Device{device("02", "blk", "", "/dev/claim"), device("03", "blk", "", "/dev/claim")}, nil},
		"not a volume":           {[]*kata.Device{device("02", "blk", "", "/dev/other")}, nil},
		"no path":                {[]*kata.Device{device("02", "blk", "", "")}, nil},
		"node":                   {[]*kata.Device{device("drive-1", "blk", "/dev/vdc", "/dev/claim")}, []disk{{"/dev/claim", "blk", "/dev/vdc"}}},
		"SCSI":                   {[]*kata.Device{device("0:7", "scsi", "", "/dev/claim")}, []disk{{"/dev/claim", "scsi", "0:7"}}},
		"channel":                {[]*kata.Device{device("0.0.0002", "blk-ccw", "", "/dev/claim")}, []disk{{"/dev/claim", "blk-ccw", "0.0.0002"}}},
		"persistent memory":      {[]*kata.Device{device("x", "nvdimm", "/dev/pmem0", "/dev/claim")}, []disk{{"/dev/claim", "nvdimm", "/dev/pmem0"}}},
		"SCSI that escapes":      {[]*kata.Device{device("0:0/../..", "scsi", "/dev/vdc", "/dev/claim")}, nil},
		"interface as a disk":    {[]*kata.Device{device("02", "net", "", "/dev/claim")}, nil},
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

// missing has no device; what has the form of an address is the real package's affair.
type missing struct{}

func (missing) Check(driver, address string) error { return hotplug.Check(driver, address) }
func (missing) Wait(context.Context, string, string) (string, error) {
	return "", hotplug.ErrAbsent
}

func (missing) Bind(context.Context, []string) (specs.LinuxDevice, error) {
	return specs.LinuxDevice{}, hotplug.ErrAbsent
}

// TestDiskThatIsNotThere: nothing is opened in its place.
func TestDiskThatIsNotThere(t *testing.T) {
	s := &Service{cfg: Config{Volumes: known{"/dev/claim"}, Devices: missing{}}}
	err := s.openDisks(t.Context(), &plan{disks: []disk{{path: "/dev/claim", driver: "blk", address: "02"}}}, &entry{})
	if !errors.Is(err, hotplug.ErrAbsent) || !strings.Contains(err.Error(), `volume "/dev/claim": there is no disk at 02`) {
		t.Errorf("got %v", err)
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

// TestSizeThatNothingKeeps: a directory takes a size only where something makes file systems of that size, and a disk is
// taken only where something encrypts it.
func TestSizeThatNothingKeeps(t *testing.T) {
	st := &kata.Storage{Driver: driverLocal, MountPoint: DefaultDir + "/sandbox/local/v", Options: []string{"size=4096"}}
	s := &Service{cfg: Config{Dir: DefaultDir, Devices: missing{}}}
	disk := &kata.Storage{Driver: driverMMIO, Source: "/dev/vdb", Fstype: "ext4", MountPoint: st.MountPoint, DriverOptions: []string{"create_filesystem", "encryption_key=ephemeral"}}
	if _, err := s.parseVolume(disk); err == nil || !strings.Contains(err.Error(), "mmioblk") {
		t.Error(err)
	}
	if _, err := s.parseVolume(st); err == nil || !strings.Contains(err.Error(), "size is not served") {
		t.Error(err)
	}
	s.cfg.Sized = func(int64, string) error { return nil }
	if o, err := s.parseVolume(st); err != nil || o.size != 4096 {
		t.Errorf("%+v, %v", o, err)
	}
}
