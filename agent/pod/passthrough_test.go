// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/hotplug"
)

// plugged has a PCI function at each path of the map and one group of those that are bound.
type plugged struct {
	missing
	at    map[string]string
	bound *[]string
}

func (p plugged) Wait(_ context.Context, driver, address string) (string, error) {
	if at, ok := p.at[address]; ok && driver == driverVFIO {
		return at, nil
	}
	return "", hotplug.ErrAbsent
}

var group = specs.LinuxDevice{Path: "/dev/vfio/3", Type: "c", Major: 243, Minor: 3}

// together is a group in which every function of the list has the driver.
type together struct {
	plugged
	group []string
}

type inGroup string

func (e inGroup) Error() string    { return "there is another function" }
func (e inGroup) Stranger() string { return string(e) }

func (g together) Bind(ctx context.Context, functions []string) (specs.LinuxDevice, error) {
	for _, f := range g.group {
		if !slices.Contains(functions, f) {
			return specs.LinuxDevice{}, inGroup(f)
		}
	}
	return g.plugged.Bind(ctx, functions)
}

// TestPassThroughTogether: of the functions that a group's node drives all must be the request's.
func TestPassThroughTogether(t *testing.T) {
	for _, stranger := range []string{"", "0000:03:00.0"} {
		var bound []string
		at := map[string]string{"02/00": "0000:01:00.0", "03/00": "0000:02:00.0"}
		devices := together{plugged{at: at, bound: &bound}, []string{"0000:01:00.0", "0000:02:00.0"}}
		if stranger != "" {
			devices.group = append(devices.group, stranger)
		}
		s := &Service{driven: map[string]string{}, cfg: Config{Devices: devices}}
		nodes := []specs.LinuxDevice{{Path: "/dev/vfio/12", Type: "c", Major: 511}, {Path: "/dev/vfio/13", Type: "c", Major: 511}}
		policy, err := passThrough(t, s, []*kata.Device{vfio(driverVFIO, "/dev/vfio/12", "0000:3b:00.0=02/00"), vfio(driverVFIO, "/dev/vfio/13", "0000:af:00.0=03/00")}, nil, devicesSpec(nil, nodes...))
		if stranger == "" && (err != nil || len(policy.Devices) != 2) {
			t.Errorf("two devices of one container: %+v, %v", policy, err)
		}
		if stranger != "" && (err == nil || len(bound) > 0) {
			t.Errorf("with another container's: %+v, %q", policy, bound)
		}
	}
}

// TestPassThroughOfAnothersDevice: a host that names the GPU of one container among the devices of another, whose policy
// allows it some device, gives it nothing of it while the first is there.
func TestPassThroughOfAnothersDevice(t *testing.T) {
	var bound []string
	s := &Service{driven: map[string]string{}, cfg: Config{Devices: plugged{at: map[string]string{"02/00": "0000:01:00.0", "03/00": "0000:02:00.0"}, bound: &bound}}}
	create := func(id string, options ...string) error {
		p := &plan{id: id, oci: &kata.Spec{}}
		if err := s.planDevices(p, []*kata.Device{vfio(driverVFIO, "/dev/vfio/12", options...)}); err != nil {
			t.Fatal(err)
		}
		return s.open(t.Context(), p, &entry{})
	}
	if err := create("model", "0000:3b:00.0=02/00"); err != nil {
		t.Fatal(err)
	}
	bound = nil
	for _, options := range [][]string{{"0000:3b:00.0=02/00"}, {"0000:af:00.0=03/00", "0000:3b:00.0=02/00"}} {
		if err := create("proxy", options...); err == nil || !strings.Contains(err.Error(), "another container's") || len(bound) > 0 {
			t.Errorf("%q: got %v, bound %q", options, err, bound)
		}
	}
	if err := s.leaveFunctions("model"); err != nil {
		t.Fatal(err)
	}
	if err := create("proxy", "0000:3b:00.0=02/00"); err != nil {
		t.Errorf("once the first is gone: %v", err)
	}
}

func (p plugged) Bind(_ context.Context, functions []string) (specs.LinuxDevice, error) {
	*p.bound = append(*p.bound, functions...)
	return group, nil
}

// described knows one device.
type described struct{}

func (described) Edit(names []string, s *specs.Spec) ([]specs.LinuxDevice, []string, error) {
	if !slices.Equal(names, []string{"v.example/gpu=0", "v.example/gpu=1", "v.example/nic=0"}) {
		return nil, nil, errors.New("no such device")
	}
	s.Process.Env = append(s.Process.Env, "GPU=0")
	return []specs.LinuxDevice{{Path: "/dev/gpu0"}}, []string{"/usr/lib"}, nil
}

func vfio(kind, path string, options ...string) *kata.Device {
	return &kata.Device{Id: "vfio0", Type: kind, ContainerPath: path, Options: options}
}

// passThrough does with devices, annotations, environment and nodes what a creation does.
func passThrough(t *testing.T, s *Service, list []*kata.Device, annotations map[string]string, spec *specs.Spec) (container.Policy, error) {
	t.Helper()
	p := &plan{oci: &kata.Spec{Annotations: annotations}}
	var policy container.Policy
	err := s.planDevices(p, list)
	if err == nil {
		err = s.openFunctions(t.Context(), p)
	}
	if err == nil {
		err = s.addFunctions(p, spec, &policy)
	}
	return policy, err
}

func devicesSpec(env []string, nodes ...specs.LinuxDevice) *specs.Spec {
	major, minor, other := int64(511), int64(0), int64(7)
	return &specs.Spec{Process: &specs.Process{Env: env}, Linux: &specs.Linux{Devices: nodes, Resources: &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: true, Type: "c", Major: &major, Minor: &minor, Access: "rwm"}, {Allow: true, Type: "c", Major: &major, Minor: &other}},
	}}}
}

// TestPassThrough: host's nodes, numbers and addresses become the guest's, and what annotations name the measured root's.
func TestPassThrough(t *testing.T) {
	var bound []string
	s := &Service{driven: map[string]string{}, cfg: Config{Devices: plugged{at: map[string]string{"02/00": "0000:01:00.0", "02/00.1": "0000:01:00.1", "03/00": "0000:02:00.0"}, bound: &bound}, CDI: described{}}}
	hostNode := specs.LinuxDevice{Path: "/dev/vfio/12", Type: "c", Major: 511}
	spec := devicesSpec([]string{
		"PATH=/bin", "PCIDEVICE_EXAMPLE_COM_NIC=0000:3b:00.0,0000:3b:00.1", "PCIDEVICE_EXAMPLE_COM_GPU=0000:af:00.0",
		`PCIDEVICE_EXAMPLE_COM_NIC_INFO={"0000:3b:00.0":{"generic":{"deviceID":"0000:3b:00.0"}}}`, "OTHER=0000:3b:00.0",
	}, hostNode, vfioControl)
	policy, err := passThrough(t, s, []*kata.Device{
		vfio(driverVFIO, "/dev/vfio/12", "0000:3b:00.0=02/00", "0000:3b:00.1=02/00.1"), vfio(driverVFIOGuest, "/dev/vfio/13", "0000:af:00.0=03/00"),
	}, map[string]string{"cdi.k8s.io/b": "v.example/nic=0", "cdi.k8s.io/a": "v.example/gpu=0,v.example/gpu=1", "other": "x"}, spec)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"PATH=/bin", "PCIDEVICE_EXAMPLE_COM_NIC=0000:01:00.0,0000:01:00.1", "PCIDEVICE_EXAMPLE_COM_GPU=0000:02:00.0",
		`PCIDEVICE_EXAMPLE_COM_NIC_INFO={"0000:01:00.0":{"generic":{"deviceID":"0000:01:00.0"}}}`, "OTHER=0000:3b:00.0", "GPU=0",
	}
	if !reflect.DeepEqual(spec.Process.Env, want) {
		t.Errorf("environment\n%q, want\n%q", spec.Process.Env, want)
	}
	if !reflect.DeepEqual(spec.Linux.Devices, []specs.LinuxDevice{group, vfioControl}) || len(spec.Linux.Resources.Devices) != 1 {
		t.Errorf("nodes %+v, rules %+v", spec.Linux.Devices, spec.Linux.Resources.Devices)
	}
	if !reflect.DeepEqual(policy.Devices, []specs.LinuxDevice{group, vfioControl, {Path: "/dev/gpu0"}}) || !slices.Equal(policy.MountSources, []string{"/usr/lib"}) {
		t.Errorf("the container may have %+v", policy)
	}
	if !slices.Equal(bound, []string{"0000:01:00.0", "0000:01:00.1"}) {
		t.Errorf("taken from the kernel: %q", bound)
	}
}

// TestPassThroughRefused: nothing of a device is believed that is not in its place in the guest.
func TestPassThroughRefused(t *testing.T) {
	good := vfio(driverVFIO, "/dev/vfio/12", "0000:3b:00.0=02/00")
	node := specs.LinuxDevice{Path: "/dev/vfio/12", Type: "c", Major: 511}
	for name, tt := range map[string]struct {
		list  []*kata.Device
		env   []string
		nodes []specs.LinuxDevice
		anno  map[string]string
		want  string
	}{
		"no functions":             {list: []*kata.Device{vfio(driverVFIO, "/dev/vfio/12")}, want: "no functions"},
		"many functions":           {list: []*kata.Device{vfio(driverVFIO, "x", make([]string, maxFunctions+1)...)}, want: "more than"},
		"many devices":             {list: slices.Repeat([]*kata.Device{good}, maxDisks+1), want: "devices"},
		"no address":               {list: []*kata.Device{vfio(driverVFIO, "x", "=02/00")}, want: "that is none"},
		"an address by a name":     {list: []*kata.Device{vfio(driverVFIO, "x", "eth0=02/00")}, want: "that is none"},
		"no path":                  {list: []*kata.Device{vfio(driverVFIO, "x", "0000:3b:00.0")}, want: "that is none"},
		"a path that escapes":      {list: []*kata.Device{vfio(driverVFIO, "x", "0000:3b:00.0=../../x")}, want: "that is none"},
		"two paths":                {list: []*kata.Device{vfio(driverVFIO, "x", "0000:3b:00.0=02/00=03/00")}, want: "that is none"},
		"a function twice":         {list: []*kata.Device{good, vfio(driverVFIOGuest, "y", "0000:3b:00.0=03/00")}, want: "twice"},
		"a place twice":            {list: []*kata.Device{good, vfio(driverVFIOGuest, "y", "0000:3b:00.1=02/00")}, want: "twice"},
		"one that is not there":    {list: []*kata.Device{vfio(driverVFIO, "/dev/vfio/12", "0000:3b:00.0=04/00")}, nodes: []specs.LinuxDevice{node}, want: "no PCI function at 04/00"},
		"a node that is not there": {list: []*kata.Device{good}, want: "lists 0 of them"},
		"a name twice":             {list: []*kata.Device{good, vfio(driverVFIO, "/dev/vfio/12", "0000:3b:00.1=02/00.0")}, nodes: []specs.LinuxDevice{node}, want: "two devices"},
		"a group twice":            {list: []*kata.Device{good}, nodes: []specs.LinuxDevice{node, node}, want: "lists 2 of them"},
		"a stranger's address":     {list: []*kata.Device{good}, nodes: []specs.LinuxDevice{node}, env: []string{"PCIDEVICE_X=0000:3b:00.1"}, want: "no such device"},
		"an address in any case":   {env: []string{"PCIDEVICE_X=0000:3b:00.0"}, want: "no such device"},
		"a variable without one":   {env: []string{"PCIDEVICE_X"}, want: "no such device"},
		"many names":               {anno: map[string]string{"cdi.k8s.io/x": strings.Repeat(",", maxNames)}, want: "at most"},
		"a name of nothing":        {anno: map[string]string{"cdi.k8s.io/x": "v.example/gpu=9"}, want: "cannot be had"},
		"an empty name":            {anno: map[string]string{"cdi.k8s.io/x": ""}, want: "cannot be had"},
		"a channel's queue":        {list: []*kata.Device{vfio("vfio-ap", "/dev/z90crypt", "01.0002")}, want: "no volume"},
	} {
		var bound []string
		s := &Service{driven: map[string]string{}, cfg: Config{Devices: plugged{at: map[string]string{"02/00": "0000:01:00.0", "02/00.0": "0000:01:00.0"}, bound: &bound}, CDI: described{}}}
		if _, err := passThrough(t, s, tt.list, tt.anno, devicesSpec(tt.env, tt.nodes...)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q in it", name, err, tt.want)
		}
	}
	none := &Service{}
	if _, err := passThrough(t, none, []*kata.Device{good}, nil, devicesSpec(nil)); err == nil {
		t.Error("a function where none are served")
	}
	if _, err := passThrough(t, none, nil, map[string]string{"cdi.k8s.io/x": "v.example/gpu=0"}, devicesSpec(nil)); err == nil {
		t.Error("a name where none are known")
	}
	control := devicesSpec(nil, vfioControl)
	if policy, err := passThrough(t, none, nil, nil, control); err != nil || len(policy.Devices) > 0 {
		t.Errorf("the control node without a group: %+v, %v", policy, err)
	}
}
