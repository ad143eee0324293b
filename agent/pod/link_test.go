// SPDX-License-Identifier: Apache-2.0

//go:build root

package pod_test

import (
	"testing"

	"github.com/vishvananda/netlink"
)

// makeLink adds an interface to the tests' own network, with a peer that is up, and
// returns its address.
func makeLink(t *testing.T) string {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	attrs.HardwareAddr = []byte{2, 0, 0, 0, 0, 1}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer0"}); err != nil {
		t.Fatal(err)
	}
	peer, err := netlink.LinkByName("peer0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(peer) }) // and the other end with it
	if err := netlink.LinkSetUp(peer); err != nil {
		t.Fatal(err)
	}
	return "02:00:00:00:00:01"
}
