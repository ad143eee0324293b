// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/cdi"
	"github.com/casemate/casemate/agent/hotplug"
	"github.com/casemate/casemate/agent/pod"
)

// oneFunction has a PCI function at 02/00, whose group is driven by a node with the number of /dev/null.
type oneFunction struct{}

func (oneFunction) Check(driver, address string) error { return hotplug.Check(driver, address) }

func (oneFunction) Wait(_ context.Context, driver, address string) (string, error) {
	if driver == "vfio-pci" && address == "02/00" {
		return "0000:01:00.0", nil
	}
	return "", hotplug.ErrAbsent
}

func (oneFunction) Bind(context.Context, []string) (specs.LinuxDevice, error) {
	return specs.LinuxDevice{Path: "/dev/vfio/3", Type: "c", Major: 1, Minor: 3}, nil
}

// withFunction adds a PCI function to a request as kata's runtime does, with the host's numbers and addresses.
func withFunction(r *kata.CreateContainerRequest, path string) *kata.CreateContainerRequest {
	r.Devices = append(r.Devices, &kata.Device{Id: "vfio0", Type: "vfio-pci", ContainerPath: "/dev/vfio/12", Options: []string{"0000:3b:00.0=" + path}})
	r.OCI.Linux.Devices = append(r.OCI.Linux.Devices, &kata.LinuxDevice{Path: "/dev/vfio/12", Type: "c", Major: 511, Minor: 1})
	r.OCI.Linux.Resources.Devices = append(r.OCI.Linux.Resources.Devices, &kata.LinuxDeviceCgroup{Allow: true, Type: "c", Major: 511, Minor: 1, Access: "rwm"})
	r.OCI.Process.Env = append(r.OCI.Process.Env, "PCIDEVICE_EXAMPLE_COM_NIC=0000:3b:00.0")
	return r
}

// TestRootDevices: a container gets the guest's node of its PCI function and the guest's address, and what the measured
// root says of a device that an annotation names: a node that it can open, a file that it cannot change, a variable.
func TestRootDevices(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "libgpu.so")
	text := "cdiVersion: '0.6.0'\nkind: v.example/gpu\ndevices:\n- name: '0'\n  containerEdits:\n    env: [GPU=zero]\n" +
		"    deviceNodes: [{path: /dev/gpu0, hostPath: /dev/zero}]\n    mounts: [{hostPath: " + file + ", containerPath: /data/libgpu.so}]\n"
	for name, content := range map[string]string{file: "library\n", filepath.Join(dir, "gpu.yaml"): text} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	g := startJudgedGuest(t, allowAll{}, nil, nil, func(c *pod.Config) { c.Devices, c.CDI = oneFunction{}, cdi.New([]string{dir}) })
	g.sandbox(t)
	r := withFunction(request("device", "sh", "-c", "echo $PCIDEVICE_EXAMPLE_COM_NIC $GPU; echo x > /dev/vfio/3 && echo driven; ls /dev/vfio; "+
		"head -c 2 /dev/gpu0 | grep -c .; cat /data/libgpu.so; echo y > /data/libgpu.so || echo kept"), "02/00")
	r.OCI.Annotations = map[string]string{"cdi.k8s.io/vfio12": "v.example/gpu=0"}
	g.start(t, r)
	if got := g.output(t, "device"); got != "0000:01:00.0 zero\ndriven\n3\n1\nlibrary\nkept\n" {
		t.Errorf("got %q", got)
	}
	g.remove(t, "device")

	_, err := g.CreateContainer(within(t), withFunction(request("absent", "true"), "03/00"))
	wantCode(t, "a function that is not there", err, codes.NotFound, `device "/dev/vfio/12": there is no PCI function at 03/00`)
	r = request("named", "true")
	r.OCI.Annotations = map[string]string{"cdi.k8s.io/x": "v.example/gpu=1"}
	_, err = g.CreateContainer(within(t), r)
	wantCode(t, "a device that nothing describes", err, codes.NotFound, "a device that annotations name cannot be had")
	if strings.Contains(err.Error(), dir) {
		t.Errorf("the host learns the guest's files: %v", err)
	}
	r = request("control", "true")
	r.OCI.Linux.Devices = append(r.OCI.Linux.Devices, &kata.LinuxDevice{Path: "/dev/vfio/vfio", Type: "c", Major: 10, Minor: 196})
	_, err = g.CreateContainer(within(t), r)
	wantCode(t, "the control node without a group", err, codes.PermissionDenied, "/dev/vfio/vfio")
}
