// SPDX-License-Identifier: Apache-2.0

// Package network gives a guest that has nobody else to do it its network: one card, with an address that measured
// configuration states or that a DHCP server gives (package dhcp), a default route, name servers, and nothing more. IPv6
// is off on the card unless configuration asks for the kernel's own autoconfiguration (RFC 4862), which brings no name
// servers here.
//
// Which card there is, what is at its other end and all that a DHCP server says are the host's. None of it makes anything
// valid: who is talked to is proved above, by pinned certificates and digests. What the host can do here is to give no
// network, and then one line names what is waited for. The loopback interface and its addresses belong to the workload:
// no address, gateway or name server is taken from there.
//
//   - config.go: what configuration says, and its rules
//   - card.go: the interface and what is set on it
//   - resolver.go: name servers, in a file of /run over /etc/resolv.conf
//   - keeper.go: up to the first address, and from lease to lease
package network
