// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/network/dhcp"
)

// lookPause is between two looks for a card that is not there.
const lookPause = 200 * time.Millisecond

// sysctl6 has a directory for each interface, and is absent in a kernel without IPv6.
const sysctl6 = "/proc/sys/net/ipv6/conf"

// card is the one interface that is set up.
type card struct {
	link netlink.Link
	mac  dhcp.MAC
}

// findCard waits for the card until ctx ends, and calls late once if it is not there at first.
func findCard(ctx context.Context, name string, late func()) (*card, error) {
	for patience := time.Now().Add(cardTime); ; {
		c, err := lookForCard(name)
		if c != nil || err != nil {
			return c, err
		}
		if late != nil && time.Now().After(patience) {
			late()
			late = nil
		}
		select {
		case <-time.After(lookPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// lookForCard returns nil where there is none. Without a name it takes the one of Ethernet that the kernel found first.
func lookForCard(name string) (*card, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	slices.SortFunc(links, func(a, b netlink.Link) int { return a.Attrs().Index - b.Attrs().Index })
	for _, l := range links {
		a := l.Attrs()
		if a.Flags&net.FlagLoopback != 0 || a.EncapType != "ether" || len(a.HardwareAddr) != len(dhcp.MAC{}) || name != "" && a.Name != name {
			continue
		}
		return &card{link: l, mac: dhcp.MAC(a.HardwareAddr)}, nil
	}
	return nil, nil
}

func (c *card) name() string { return c.link.Attrs().Name }

// up switches the card on. IPv6 is settled before: the kernel listens to routers from then on.
func (c *card) up(slaac bool) error {
	values := map[string]string{"disable_ipv6": "1"}
	if slaac {
		values = map[string]string{"disable_ipv6": "0", "accept_ra": "1", "autoconf": "1"}
	}
	for file, value := range values {
		err := os.WriteFile(filepath.Join(sysctl6, c.name(), file), []byte(value), 0)
		if err != nil && (slaac || !errors.Is(err, fs.ErrNotExist)) {
			return fmt.Errorf("settling IPv6 on %s: %w", c.name(), err)
		}
	}
	if err := netlink.LinkSetUp(c.link); err != nil {
		return fmt.Errorf("setting interface %s up: %w", c.name(), err)
	}
	return nil
}

// set makes s all that the card has of IPv4.
func (c *card) set(s Settings) error {
	if s.MTU != 0 {
		if err := netlink.LinkSetMTU(c.link, s.MTU); err != nil {
			return fmt.Errorf("setting the MTU of %s to %d: %w", c.name(), s.MTU, err)
		}
	}
	own := &netlink.Addr{IPNet: ipNet(s.Address)}
	if err := netlink.AddrReplace(c.link, own); err != nil {
		return fmt.Errorf("adding address %v: %w", s.Address, err)
	}
	if err := c.dropAddresses(own.IPNet); err != nil {
		return err
	}
	if err := c.dropDefault(s.Gateway); err != nil || !s.Gateway.IsValid() {
		return err
	}
	route := &netlink.Route{
		LinkIndex: c.link.Attrs().Index, Dst: everywhere(), Gw: s.Gateway.AsSlice(), Src: s.Address.Addr().AsSlice(), Protocol: unix.RTPROT_BOOT, Table: unix.RT_TABLE_MAIN,
	}
	if s.Address.Bits() == 32 {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("adding the route by %v: %w", s.Gateway, err)
	}
	return nil
}

// clear takes the address away, and with it the kernel takes what goes by it.
func (c *card) clear() error { return c.dropAddresses(nil) }

// dropAddresses removes all IPv4 addresses but keep.
func (c *card) dropAddresses(keep *net.IPNet) error {
	list, err := netlink.AddrList(c.link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing addresses of %s: %w", c.name(), err)
	}
	for _, a := range list {
		if keep != nil && a.IPNet.String() == keep.String() {
			continue
		}
		// A subnet's first address can take the others with it.
		if err := netlink.AddrDel(c.link, &netlink.Addr{IPNet: a.IPNet}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("removing address %s: %w", a.IPNet, err)
		}
	}
	if keep == nil {
		return nil
	}
	// It may have been one of those others.
	return netlink.AddrReplace(c.link, &netlink.Addr{IPNet: keep})
}

// dropDefault removes default routes of the card that go by another gateway than keep.
func (c *card) dropDefault(keep netip.Addr) error {
	list, err := netlink.RouteList(c.link, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing routes of %s: %w", c.name(), err)
	}
	for _, r := range list {
		gw, ok := netip.AddrFromSlice(r.Gw.To4())
		if r.Dst != nil && r.Dst.String() != everywhere().String() || ok && gw == keep {
			continue
		}
		if err := netlink.RouteDel(&r); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("removing a route by %v: %w", r.Gw, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func everywhere() *net.IPNet { return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)} }
