// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"time"
)

// Bounds of a lease.
const (
	// MaxDNS is how many name servers a resolver asks (resolv.conf(5), MAXNS); further ones are not read.
	MaxDNS = 3
	// MinMTU and MaxMTU bound an interface's MTU in bytes: what every host takes (RFC 791), and large frames of Ethernet.
	MinMTU, MaxMTU = 576, 9216

	minPrefix = 8 // a network of more addresses would be half of all
	minLease  = time.Minute
	minRenew  = 5 * time.Second
	forever   = 0xffffffff // RFC 2131, section 3.3
)

// ErrRefused is wrapped by errors about answers that no network would give.
var ErrRefused = errors.New("the DHCP server's answer is refused")

// Lease is what a server has given, checked.
type Lease struct {
	Address netip.Prefix // the guest's, with its subnet
	Gateway netip.Addr   // in the subnet, or any where the subnet is the address alone; not valid for none
	DNS     []netip.Addr // at most MaxDNS
	MTU     int          // bytes; 0 for none
	Server  netip.Addr

	// Obtained is when it was asked for, by the monotonic clock; Renew, Rebind and Expires count from it. Expires is 0
	// for a lease without an end.
	Obtained               time.Time
	Renew, Rebind, Expires time.Duration
}

// Same reports whether two leases set the network up in the same way.
func (l Lease) Same(o Lease) bool {
	if l.Address != o.Address || l.Gateway != o.Gateway || l.MTU != o.MTU || len(l.DNS) != len(o.DNS) {
		return false
	}
	for i := range l.DNS {
		if l.DNS[i] != o.DNS[i] {
			return false
		}
	}
	return true
}

// judge makes a lease of an offer or an acknowledgement, or says what is wrong with it.
func judge(a answer, asked time.Time) (Lease, error) {
	l := Lease{Server: a.server, Obtained: asked}
	refuse := func(format string, args ...any) (Lease, error) {
		return Lease{}, fmt.Errorf("%w: %s", ErrRefused, fmt.Sprintf(format, args...))
	}
	ones, ok := prefixLength(a.mask)
	switch {
	case !Unicast(a.server):
		return refuse("server identifier %v", a.server)
	case !ok || ones < minPrefix:
		return refuse("subnet mask %v, want one of %d to 32 bits", a.mask, minPrefix)
	case !Unicast(a.yours) || a.yours.IsLinkLocalUnicast():
		return refuse("address %v", a.yours)
	}
	l.Address = netip.PrefixFrom(a.yours, ones)
	if !HostOf(l.Address, a.yours) {
		return refuse("address %v is the subnet's own or its broadcast", l.Address)
	}
	if a.router.IsValid() {
		if !GatewayOf(l.Address, a.router) {
			return refuse("router %v of %v", a.router, l.Address)
		}
		l.Gateway = a.router
	}
	for _, server := range a.dns {
		if !Unicast(server) {
			return refuse("name server %v", server)
		}
	}
	l.DNS = a.dns
	if a.mtu != 0 && (a.mtu < MinMTU || a.mtu > MaxMTU) {
		return refuse("MTU %d, want %d to %d", a.mtu, MinMTU, MaxMTU)
	}
	l.MTU = int(a.mtu)
	if a.lease != forever && seconds(a.lease) < minLease {
		return refuse("a lease of %d s, want %v or more", a.lease, minLease)
	}
	l.times(a)
	return l, nil
}

// times takes the server's where they are in order, and else the shares of RFC 2131, section 4.4.5.
func (l *Lease) times(a answer) {
	if a.lease == forever {
		return
	}
	l.Expires = seconds(a.lease)
	l.Renew, l.Rebind = seconds(a.renew), seconds(a.rebind)
	if l.Rebind < 2*minRenew || l.Rebind >= l.Expires {
		l.Rebind = l.Expires / 8 * 7
	}
	if l.Renew >= minRenew && l.Renew < l.Rebind {
		return
	}
	if l.Renew = l.Expires / 2; l.Renew >= l.Rebind {
		l.Renew = l.Rebind / 2
	}
}

func seconds(n uint32) time.Duration { return time.Duration(n) * time.Second }

// prefixLength wants ones, then zeros.
func prefixLength(mask netip.Addr) (ones int, ok bool) {
	if !mask.Is4() {
		return 0, false
	}
	m := mask.As4()
	n := binary.BigEndian.Uint32(m[:])
	ones = bits.LeadingZeros32(^n)
	return ones, bits.OnesCount32(n) == ones
}

// Unicast reports IPv4 addresses that one machine on a network can have. Loopback's are none: they are the workload's.
func Unicast(a netip.Addr) bool {
	if !a.Is4() || a.IsLoopback() || a.IsMulticast() {
		return false
	}
	first := a.As4()[0]
	return first != 0 && first < 240
}

// HostOf reports addresses in p's subnet that are neither its own nor its broadcast; a subnet of one or two addresses has
// neither (RFC 3021).
func HostOf(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) || !a.Is4() {
		return false
	}
	if p.Bits() >= 31 {
		return true
	}
	b := a.As4()
	host := binary.BigEndian.Uint32(b[:]) & (1<<(32-p.Bits()) - 1)
	return host != 0 && host != 1<<(32-p.Bits())-1
}

// GatewayOf reports addresses that can be the gateway of the machine with address p: another host of its subnet. A machine
// whose subnet is its address alone, as some clouds give them out, reaches any on the link.
func GatewayOf(p netip.Prefix, a netip.Addr) bool {
	if !Unicast(a) || a == p.Addr() {
		return false
	}
	return p.Bits() == 32 || HostOf(p, a)
}
