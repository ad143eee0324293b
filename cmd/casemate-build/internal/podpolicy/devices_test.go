// SPDX-License-Identifier: Apache-2.0

package podpolicy

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/policy/replay"
)

// TestVolumeDevices: a container gets the disks of its volumeDevices, all of them and no other.
func TestVolumeDevices(t *testing.T) {
	text := strings.Replace(replay.PodFile, "  - name: app\n", "  - name: app\n    volumeDevices: [{name: db, devicePath: /dev/db}]\n", 1)
	text = strings.Replace(text, "  volumes:\n", "  volumes:\n  - {name: db, persistentVolumeClaim: {claimName: db}}\n", 1)
	generated, err := Generate(t.Context(), []byte(text), corpus(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(generated.Rego), `"/dev/db"`) || !strings.Contains(strings.Join(generated.Notes, "\n"), `device = "/dev/db"`) {
		t.Fatalf("notes %q of\n%s", generated.Notes, text)
	}
	s := replay.Stacks()[0]
	disk := func(path, kind string) *kata.Device {
		return &kata.Device{Id: "02/01", Type: kind, VmPath: "/dev/vda", ContainerPath: path}
	}
	node := func(path string) *kata.LinuxDevice { return &kata.LinuxDevice{Path: path, Type: "b", Major: 254} }
	for name, tt := range map[string]struct {
		container string
		devices   []*kata.Device
		nodes     []*kata.LinuxDevice
		allowed   bool
	}{
		"as the pod says":             {"app", []*kata.Device{disk("/dev/db", "blk")}, []*kata.LinuxDevice{node("/dev/db")}, true},
		"without a node":              {"app", []*kata.Device{disk("/dev/db", "mmioblk")}, nil, true},
		"left out":                    {"app", nil, nil, false},
		"another path":                {"app", []*kata.Device{disk("/dev/other", "blk")}, nil, false},
		"one more":                    {"app", []*kata.Device{disk("/dev/db", "blk"), disk("/dev/other", "blk")}, nil, false},
		"twice":                       {"app", []*kata.Device{disk("/dev/db", "blk"), disk("/dev/db", "blk")}, nil, false},
		"of another kind":             {"app", []*kata.Device{disk("/dev/db", "vfio-pci")}, nil, false},
		"a node of the guest's":       {"app", []*kata.Device{disk("/dev/db", "blk")}, []*kata.LinuxDevice{node("/dev/mem")}, false},
		"a character device":          {"app", []*kata.Device{disk("/dev/db", "blk")}, []*kata.LinuxDevice{{Path: "/dev/db", Type: "c"}}, false},
		"another container's":         {"plain", []*kata.Device{disk("/dev/db", "blk")}, nil, false},
		"a container without any":     {"plain", nil, nil, true},
		"a node that comes with none": {"plain", nil, []*kata.LinuxDevice{node("/dev/db")}, false},
	} {
		p := load(t, generated)
		tried := false
		for _, step := range s.Life() {
			m, ok := step.Msg.(*kata.CreateContainerRequest)
			if !ok || m.ContainerId != s.ID(tt.container) {
				_ = p.Allow(t.Context(), step.Request(), step.Msg)
				continue
			}
			m = proto.Clone(m).(*kata.CreateContainerRequest)
			m.Devices = tt.devices
			m.OCI.Linux.Devices = tt.nodes
			tried = true
			if err := p.Allow(t.Context(), step.Request(), m); (err == nil) != tt.allowed {
				t.Errorf("%s: got %v", name, err)
			}
			break
		}
		if !tried {
			t.Errorf("%s: the pod has no %s", name, tt.container)
		}
	}
}
