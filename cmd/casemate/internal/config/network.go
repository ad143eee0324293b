// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"

	"github.com/casemate/casemate/agent/network/dhcp"
)

// How the network card gets its address.
const (
	NetworkDHCP   = "dhcp"
	NetworkStatic = "static"
)

// Network is the one card of a guest that sets up its own network. It is the measured root's to say: it is about the
// machine, and decides who starts containers.
type Network struct {
	// Mode is "dhcp" or "static".
	Mode string `toml:"mode"`
	// Interface is the card's name; empty is the first one of Ethernet.
	Interface string `toml:"interface"`
	// Address is the guest's with its subnet, as 192.0.2.7/24, and Gateway that of the default route, none if empty.
	// They go with "static".
	Address string `toml:"address"`
	Gateway string `toml:"gateway"`
	// DNS are the IP addresses of at most three name servers; with "dhcp" they are asked in place of those that the server names.
	DNS []string `toml:"dns"`
	// SLAAC takes IPv6 addresses and routers from router announcements. Otherwise the card has no IPv6.
	SLAAC bool `toml:"slaac"`
}

// linkName is a name that the kernel takes and no path or pattern.
var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,14}$`)

func (n Network) set() bool {
	return n.Mode != "" || n.Interface != "" || n.Address != "" || n.Gateway != "" || len(n.DNS) > 0 || n.SLAAC
}

func (n Network) check() error {
	if !n.set() {
		return nil
	}
	if n.Interface != "" && (!linkName.MatchString(n.Interface) || n.Interface == "lo") {
		return fmt.Errorf("network.interface %q: want the name of a network card", n.Interface)
	}
	switch n.Mode {
	case NetworkDHCP:
		if n.Address != "" || n.Gateway != "" {
			return fmt.Errorf("network.address and network.gateway: they go with network.mode = %q", NetworkStatic)
		}
	case NetworkStatic:
		if n.Address == "" {
			return fmt.Errorf("network.mode %q: want network.address", n.Mode)
		}
	default:
		return fmt.Errorf("network.mode %q: want %q or %q", n.Mode, NetworkDHCP, NetworkStatic)
	}
	_, _, errStatic := n.Static()
	_, errDNS := n.Servers()
	return errors.Join(errStatic, errDNS)
}

// Static returns address and gateway; what is not set is not valid.
func (n Network) Static() (address netip.Prefix, gateway netip.Addr, err error) {
	if n.Address == "" {
		return address, gateway, nil
	}
	address, err = netip.ParsePrefix(n.Address)
	if err != nil || !dhcp.Unicast(address.Addr()) || address.Bits() == 0 || !dhcp.HostOf(address, address.Addr()) {
		return address, gateway, fmt.Errorf("network.address %q: want an IPv4 address with its subnet, as 192.0.2.7/24", n.Address)
	}
	if n.Gateway == "" {
		return address, gateway, nil
	}
	gateway, err = netip.ParseAddr(n.Gateway)
	if err != nil || !dhcp.GatewayOf(address, gateway) {
		return address, gateway, fmt.Errorf("network.gateway %q: want the IPv4 address of another host of %s", n.Gateway, n.Address)
	}
	return address, gateway, nil
}

// Servers returns the name servers.
func (n Network) Servers() ([]netip.Addr, error) {
	if len(n.DNS) > dhcp.MaxDNS {
		return nil, fmt.Errorf("network.dns: want at most %d, got %d", dhcp.MaxDNS, len(n.DNS))
	}
	var list []netip.Addr
	for _, text := range n.DNS {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || !dhcp.Unicast(a) && (!a.Is6() || a.Is4In6() || a.IsLoopback() || a.IsMulticast() || a.IsUnspecified()) {
			return nil, fmt.Errorf("network.dns %q: want the IP address of a host", text)
		}
		list = append(list, a)
	}
	return list, nil
}
