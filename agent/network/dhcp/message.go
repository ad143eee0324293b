// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

const (
	// maxMessage is what fits into a frame of Ethernet.
	maxMessage = 1472
	// minMessage is BOOTP's (RFC 1542, section 2.1), below which relays may drop one.
	minMessage = 300
	// headerLen is up to and with the magic cookie.
	headerLen = 240

	opRequest, opReply = 1, 2
	ethernet           = 1 // hardware type
)

// cookie introduces the options (RFC 2131, section 3).
var cookie = [4]byte{99, 130, 83, 99}

// Message types (RFC 2132, section 9.6).
const (
	discover = 1
	offer    = 2
	request  = 3
	ack      = 5
	nak      = 6
)

// Options (RFC 2132).
const (
	optPad       = 0
	optMask      = 1
	optRouter    = 3
	optDNS       = 6
	optMTU       = 26
	optRequested = 50
	optLease     = 51
	optType      = 53
	optServer    = 54
	optParams    = 55
	optRenew     = 58
	optRebind    = 59
	optEnd       = 255
)

// MAC is a hardware address of Ethernet.
type MAC [6]byte

// query is a message to a server.
type query struct {
	kind      byte
	xid       uint32
	mac       MAC
	client    netip.Addr // ciaddr: the address that the client has, or none
	requested netip.Addr // option 50, or none
	server    netip.Addr // option 54, or none
}

// bytes is the query on the wire, big-endian.
func (q query) bytes() []byte {
	b := make([]byte, headerLen, minMessage)
	b[0], b[1], b[2] = opRequest, ethernet, byte(len(q.mac))
	binary.BigEndian.PutUint32(b[4:], q.xid)
	if q.client.IsValid() {
		copy(b[12:16], q.client.AsSlice())
	}
	copy(b[28:], q.mac[:])
	copy(b[236:], cookie[:])
	b = append(b, optType, 1, q.kind)
	if q.requested.IsValid() {
		b = append(append(b, optRequested, 4), q.requested.AsSlice()...)
	}
	if q.server.IsValid() {
		b = append(append(b, optServer, 4), q.server.AsSlice()...)
	}
	b = append(b, optParams, 7, optMask, optRouter, optDNS, optMTU, optLease, optRenew, optRebind, optEnd)
	return append(b, make([]byte, max(0, minMessage-len(b)))...)
}

// answer is a message from a server: what of it is read. An address that it lacks is not valid, a number 0.
type answer struct {
	kind                 byte
	xid                  uint32
	mac                  MAC
	yours                netip.Addr // yiaddr
	server, mask, router netip.Addr
	dns                  []netip.Addr
	mtu                  uint16
	lease, renew, rebind uint32 // seconds
}

// parse reads an answer. Whether it is for this client, and what it is worth, is for others to say.
func parse(b []byte) (answer, error) {
	var a answer
	switch {
	case len(b) < headerLen || len(b) > maxMessage:
		return a, fmt.Errorf("reading a DHCP message: %d bytes, want %d to %d", len(b), headerLen, maxMessage)
	case b[0] != opReply || b[1] != ethernet || b[2] != byte(len(a.mac)):
		return a, fmt.Errorf("reading a DHCP message: operation %d, hardware %d with %d bytes, want an answer for Ethernet", b[0], b[1], b[2])
	case [4]byte(b[236:headerLen]) != cookie:
		return a, errors.New("reading a DHCP message: it has no options")
	}
	a.xid = binary.BigEndian.Uint32(b[4:])
	a.yours = netip.AddrFrom4([4]byte(b[16:20]))
	a.mac = MAC(b[28:34])
	if err := a.options(b[headerLen:]); err != nil {
		return a, fmt.Errorf("reading a DHCP message: %w", err)
	}
	if a.kind == 0 {
		return a, errors.New("reading a DHCP message: it has no type")
	}
	return a, nil
}

// options reads up to the end option, which has to be there.
func (a *answer) options(b []byte) error {
	var seen [256]bool
	for len(b) > 0 {
		code := b[0]
		switch {
		case code == optEnd:
			return nil
		case code == optPad:
			b = b[1:]
			continue
		case len(b) < 2 || len(b) < 2+int(b[1]):
			return fmt.Errorf("option %d is cut off", code)
		}
		value := b[2 : 2+int(b[1])]
		b = b[2+len(value):]
		if !read(code) {
			continue
		}
		if seen[code] {
			return fmt.Errorf("option %d comes twice", code)
		}
		seen[code] = true
		if err := a.option(code, value); err != nil {
			return err
		}
	}
	return errors.New("the options have no end")
}

func read(code byte) bool {
	switch code {
	case optMask, optRouter, optDNS, optMTU, optLease, optType, optServer, optRenew, optRebind:
		return true
	}
	return false
}

func (a *answer) option(code byte, value []byte) error {
	want := map[byte]int{optType: 1, optMTU: 2}[code]
	if want == 0 {
		want = 4
	}
	list := code == optRouter || code == optDNS
	if len(value) != want && (!list || len(value) == 0 || len(value)%want != 0) {
		return fmt.Errorf("option %d has %d bytes", code, len(value))
	}
	switch code {
	case optType:
		a.kind = value[0]
	case optMTU:
		a.mtu = binary.BigEndian.Uint16(value)
	case optMask:
		a.mask = netip.AddrFrom4([4]byte(value))
	case optServer:
		a.server = netip.AddrFrom4([4]byte(value))
	case optRouter: // in the order of preference
		a.router = netip.AddrFrom4([4]byte(value[:4]))
	case optDNS:
		for ; len(value) > 0 && len(a.dns) < MaxDNS; value = value[4:] {
			a.dns = append(a.dns, netip.AddrFrom4([4]byte(value[:4])))
		}
	case optLease:
		a.lease = binary.BigEndian.Uint32(value)
	case optRenew:
		a.renew = binary.BigEndian.Uint32(value)
	case optRebind:
		a.rebind = binary.BigEndian.Uint32(value)
	}
	return nil
}
