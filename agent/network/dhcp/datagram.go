// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"encoding/binary"
	"net/netip"
)

const (
	serverPort, clientPort = 67, 68

	ipHeader, udpHeader = 20, 8
	ipUDP               = 17
	timeToLive          = 64
	fragment            = 0x3fff // more to come, or not the first
)

// datagram is payload behind the headers of IPv4 (RFC 791) and UDP (RFC 768), from the client's port to the server's.
func datagram(from, to netip.Addr, payload []byte) []byte {
	b := make([]byte, ipHeader+udpHeader, ipHeader+udpHeader+len(payload))
	b = append(b, payload...)
	udp := b[ipHeader:]
	binary.BigEndian.PutUint16(udp[0:], clientPort)
	binary.BigEndian.PutUint16(udp[2:], serverPort)
	binary.BigEndian.PutUint16(udp[4:], uint16(len(udp))) //nolint:gosec // a message
	copy(b[12:16], from.AsSlice())
	copy(b[16:20], to.AsSlice())
	// The pseudo header is made of the same fields: addresses, protocol, length.
	if sum := checksum(b[12:20], udp, []byte{0, ipUDP, udp[4], udp[5]}); sum != 0 {
		binary.BigEndian.PutUint16(udp[6:], sum)
	} else {
		binary.BigEndian.PutUint16(udp[6:], 0xffff)
	}
	b[0], b[8], b[9] = 4<<4|ipHeader/4, timeToLive, ipUDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b))) //nolint:gosec // a message
	binary.BigEndian.PutUint16(b[10:], checksum(b[:ipHeader]))
	return b
}

// checksum is the internet's (RFC 1071) over parts, of which only the last may have an odd length.
func checksum(parts ...[]byte) uint16 {
	var sum uint32
	for _, p := range parts {
		for ; len(p) > 1; p = p[2:] {
			sum += uint32(p[0])<<8 | uint32(p[1])
		}
		if len(p) == 1 {
			sum += uint32(p[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum) //nolint:gosec // folded
}

// payload returns what an IPv4 packet brings to the client's port, nil for any other packet.
func payload(b []byte) []byte {
	if len(b) < ipHeader || b[0]>>4 != 4 {
		return nil
	}
	header, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < ipHeader || total > len(b) || total < header+udpHeader || b[9] != ipUDP || binary.BigEndian.Uint16(b[6:])&fragment != 0 {
		return nil
	}
	udp := b[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if binary.BigEndian.Uint16(udp[0:]) != serverPort || binary.BigEndian.Uint16(udp[2:]) != clientPort || length < udpHeader || length > len(udp) {
		return nil
	}
	return udp[udpHeader:length]
}
