// SPDX-License-Identifier: Apache-2.0

// Package dhcp is a DHCPv4 client as the first process of a guest needs one: it asks for an address (RFC 2131, sections
// 3.1 and 4.4), checks what is offered, and keeps it by renewing and rebinding (4.4.5).
//
// Every answer is the host's. Read are the message type, the server's identifier, address, subnet mask, first router,
// name servers, MTU and the three times; each is bounded, and a lease that lacks address, mask, server or time, or has one
// that no network has, is refused as a whole. Names, boot files, time servers, static and classless routes (options 33
// and 121) are neither asked for nor read, and nothing is said of the guest but its hardware address. Options in the
// fields of other options (overload, option 52) are not looked for, an option that is read may come once (no splitting,
// RFC 3396), and UDP checksums are not verified: paravirtual cards leave them to nobody, and a host that forges an answer makes a right one.
// A conflict of addresses is not probed for, nor is an address given back.
//
//   - message.go: messages on the wire (RFC 2131 section 2, RFC 2132)
//   - lease.go: which answers make a lease
//   - client.go: discover, request, renew, rebind
//   - socket.go: a packet socket before there is an address, a UDP socket to renew
//   - datagram.go: IPv4 and UDP headers of the packet socket
package dhcp
