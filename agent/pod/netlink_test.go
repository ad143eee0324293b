// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// makeDummy adds an interface to the tests' own network and returns its address.
func makeDummy(t *testing.T) string {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	attrs.HardwareAddr = []byte{2, 0, 0, 0, 0, 1}
	link := &netlink.Dummy{LinkAttrs: attrs}
	if err := netlink.LinkAdd(link); err != nil {
		t.Skipf("needs a dummy interface: %v", err)
	}
	t.Cleanup(func() {
		if l, err := netlink.LinkByIndex(link.Index); err == nil {
			_ = netlink.LinkDel(l)
		}
	})
	return "02:00:00:00:00:01"
}
