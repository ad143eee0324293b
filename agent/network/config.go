// SPDX-License-Identifier: Apache-2.0

package network

import (
	"net/netip"
	"slices"

	"github.com/casemate/casemate/agent/network/dhcp"
)

// Config is what measured configuration says of the guest's network.
type Config struct {
	// Interface is the card's name, "" for the first one of Ethernet.
	Interface string
	// DHCP asks a server; Static is set otherwise.
	DHCP   bool
	Static Settings
	// DNS, if any, are asked in place of the name servers that DHCP names.
	DNS []netip.Addr
	// SLAAC lets the kernel take IPv6 addresses and routers from announcements.
	SLAAC bool
}

// Settings are what is set on the card, IPv4 alone.
type Settings struct {
	Address netip.Prefix // the guest's, with its subnet
	Gateway netip.Addr   // not valid for none
	DNS     []netip.Addr
	MTU     int // bytes, 0 for the card's own
}

func (s Settings) same(o Settings) bool {
	return s.Address == o.Address && s.Gateway == o.Gateway && s.MTU == o.MTU && slices.Equal(s.DNS, o.DNS)
}

// leased are the settings of a lease.
func (c Config) leased(l dhcp.Lease) Settings {
	s := Settings{Address: l.Address, Gateway: l.Gateway, DNS: l.DNS, MTU: l.MTU}
	if len(c.DNS) > 0 {
		s.DNS = c.DNS
	}
	return s
}
