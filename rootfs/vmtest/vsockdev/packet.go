// SPDX-License-Identifier: Apache-2.0

package vsockdev

import (
	"encoding/binary"
	"fmt"
)

// Virtual I/O Device 1.2, section 5.10.6: the header before every packet's data.
const (
	packetHeaderSize = 44
	typeStream       = 1
	hostCID          = 2
)

// operation is what a packet does to its connection.
type operation uint16

const (
	opRequest       operation = 1
	opResponse      operation = 2
	opReset         operation = 3
	opShutdown      operation = 4
	opData          operation = 5
	opCreditUpdate  operation = 6
	opCreditRequest operation = 7
)

// Flags of opShutdown: the sender will not receive, will not send any more.
const (
	shutdownReceive = 1
	shutdownSend    = 2
)

// streamKey names a connection; the context ids are always ours and the guest's.
type streamKey struct {
	host, guest uint32 // ports
}

// packet is one packet in either direction, seen from the connection.
type packet struct {
	key       streamKey
	op        operation
	flags     uint32
	alloc     uint32 // the sender's buffer space
	forwarded uint32 // bytes that the sender's user has taken, modulo 2^32
	data      []byte
}

// marshal writes a packet for the guest with the given context id.
func (p packet) marshal(guestCID uint64) []byte {
	e := binary.LittleEndian
	b := make([]byte, packetHeaderSize, packetHeaderSize+len(p.data))
	e.PutUint64(b[0:], hostCID)
	e.PutUint64(b[8:], guestCID)
	e.PutUint32(b[16:], p.key.host)
	e.PutUint32(b[20:], p.key.guest)
	e.PutUint32(b[24:], uint32(len(p.data)))
	e.PutUint16(b[28:], typeStream)
	e.PutUint16(b[30:], uint16(p.op))
	e.PutUint32(b[32:], p.flags)
	e.PutUint32(b[36:], p.alloc)
	e.PutUint32(b[40:], p.forwarded)
	return append(b, p.data...)
}

// parsePacket reads a packet of the guest; data aliases b.
func parsePacket(b []byte) (packet, error) {
	if len(b) < packetHeaderSize {
		return packet{}, fmt.Errorf("packet of %d bytes", len(b))
	}
	e := binary.LittleEndian
	if t := e.Uint16(b[28:]); t != typeStream {
		return packet{}, fmt.Errorf("packet of socket type %d", t)
	}
	if size := e.Uint32(b[24:]); uint64(size) > uint64(len(b)-packetHeaderSize) {
		return packet{}, fmt.Errorf("packet of %d bytes claims %d bytes of data", len(b), size)
	}
	return packet{
		key:       streamKey{guest: e.Uint32(b[16:]), host: e.Uint32(b[20:])},
		op:        operation(e.Uint16(b[30:])),
		flags:     e.Uint32(b[32:]),
		alloc:     e.Uint32(b[36:]),
		forwarded: e.Uint32(b[40:]),
		data:      b[packetHeaderSize : packetHeaderSize+e.Uint32(b[24:])],
	}, nil
}
