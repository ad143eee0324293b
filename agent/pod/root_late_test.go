// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"context"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"google.golang.org/grpc/codes"

	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/agent/hotplug"
	"github.com/casemate/casemate/agent/pod"
)

// lateDevices makes an interface when it is waited for.
type lateDevices struct {
	t    *testing.T
	path string // "" makes none
}

func (lateDevices) Check(driver, address string) error { return hotplug.Check(driver, address) }

func (d lateDevices) Wait(_ context.Context, driver, address string) (string, error) {
	if driver != "net" || address != d.path {
		return "", hotplug.ErrAbsent
	}
	makeNIC(d.t, peerNIC)
	return "nic0", nil
}

func (lateDevices) Bind(context.Context, []string) (specs.LinuxDevice, error) {
	return specs.LinuxDevice{}, hotplug.ErrAbsent
}

// TestRootInterfaceThatComesLate: a request that says where the interface will be waits for it, and one whose place is of
// no form that a device's is does not; which interface is meant is the hardware address's to say.
func TestRootInterfaceThatComesLate(t *testing.T) {
	g := startJudgedGuest(t, allowAll{}, nil, nil, func(c *pod.Config) { c.Devices = lateDevices{t, "02/00"} })
	ask := func(path, mac string) error {
		_, err := g.UpdateInterface(within(t), &kata.UpdateInterfaceRequest{Interface: &kata.Interface{Name: "eth9", HwAddr: mac, DevicePath: path}})
		return err
	}
	wantCode(t, "a path that escapes", ask("../02", peerNIC.String()), codes.InvalidArgument, "device path")
	wantCode(t, "another place", ask("03", peerNIC.String()), codes.NotFound, "Link not found")
	wantCode(t, "no place", ask("", peerNIC.String()), codes.NotFound, "Link not found")
	wantCode(t, "another's address", ask("02/00", "02:00:00:00:00:99"), codes.NotFound, "Link not found")
	if err := ask("02/00", peerNIC.String()); err != nil {
		t.Error(err)
	}
	if _, err := netlink.LinkByName("eth9"); err != nil {
		t.Error(err)
	}
}
