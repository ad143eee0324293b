// SPDX-License-Identifier: Apache-2.0

package dhcp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

var testMAC = MAC{0x52, 0x54, 0, 0xc0, 0xff, 0xee}

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

// option is one of an answer; without bytes it is left out.
type option struct {
	code  byte
	value []byte
}

func addresses(list ...string) (b []byte) {
	for _, a := range list {
		b = append(b, ip(a).AsSlice()...)
	}
	return b
}

func number(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// reply builds a server's message: a good one of 192.0.2.0/24, with the given options in place of its own.
func reply(kind byte, xid uint32, mac MAC, yours string, changed ...option) []byte {
	b := make([]byte, headerLen)
	b[0], b[1], b[2] = opReply, ethernet, 6
	binary.BigEndian.PutUint32(b[4:], xid)
	copy(b[16:], addresses(yours))
	copy(b[28:], mac[:])
	copy(b[236:], cookie[:])
	list := []option{
		{optType, []byte{kind}}, {optServer, addresses("192.0.2.1")}, {optMask, addresses("255.255.255.0")}, {optRouter, addresses("192.0.2.1")},
		{optDNS, addresses("192.0.2.53", "198.51.100.53")}, {optLease, number(3600)},
	}
	for _, c := range changed {
		found := false
		for i := range list {
			if list[i].code == c.code && !found {
				list[i], found = c, true
			}
		}
		if !found {
			list = append(list, c)
		}
	}
	for _, o := range list {
		if o.value != nil {
			b = append(append(b, o.code, byte(len(o.value))), o.value...)
		}
	}
	return append(b, optEnd)
}

func TestParse(t *testing.T) {
	good := reply(offer, 7, testMAC, "192.0.2.9", option{12, []byte("evil; reboot")}, option{121, []byte{0, 10, 0, 0, 1}}, option{optMTU, []byte{5, 220}})
	a, err := parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if a.kind != offer || a.xid != 7 || a.mac != testMAC || a.yours != ip("192.0.2.9") || a.router != ip("192.0.2.1") || a.mtu != 1500 || a.lease != 3600 || len(a.dns) != 2 {
		t.Errorf("got %+v", a)
	}
	many := reply(offer, 7, testMAC, "192.0.2.9", option{optDNS, bytes.Repeat(addresses("192.0.2.53"), 63)})
	if a, err := parse(many); err != nil || len(a.dns) != MaxDNS {
		t.Errorf("63 name servers: %d kept, %v", len(a.dns), err)
	}
	change := func(at int, value byte) []byte {
		b := bytes.Clone(good)
		b[at] = value
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":             nil,
		"cut header":          good[:headerLen-1],
		"a request":           change(0, opRequest),
		"other hardware":      change(1, 6),
		"a long address":      change(2, 16),
		"no cookie":           change(236, 0),
		"no end":              good[:len(good)-1],
		"cut option":          good[:len(good)-2],
		"too long":            append(bytes.Clone(good), make([]byte, maxMessage)...),
		"no type":             reply(offer, 7, testMAC, "192.0.2.9", option{optType, nil}),
		"type of two bytes":   reply(offer, 7, testMAC, "192.0.2.9", option{optType, []byte{2, 2}}),
		"mask of three bytes": reply(offer, 7, testMAC, "192.0.2.9", option{optMask, []byte{255, 255, 255}}),
		"no router in list":   reply(offer, 7, testMAC, "192.0.2.9", option{optRouter, []byte{}}),
		"torn name server":    reply(offer, 7, testMAC, "192.0.2.9", option{optDNS, []byte{1, 2, 3, 4, 5}}),
		"two masks":           append(reply(offer, 7, testMAC, "192.0.2.9")[:len(reply(offer, 7, testMAC, "192.0.2.9"))-1], optMask, 4, 255, 0, 0, 0, optEnd),
	} {
		if a, err := parse(b); err == nil {
			t.Errorf("%s: got %+v", name, a)
		}
	}
}

// TestQuery: a query says nothing of the guest but its hardware address and what it was offered.
func TestQuery(t *testing.T) {
	b := query{kind: request, xid: 0x01020304, mac: testMAC, requested: ip("192.0.2.9"), server: ip("192.0.2.1")}.bytes()
	if len(b) != minMessage || binary.BigEndian.Uint32(b[4:]) != 0x01020304 || !bytes.Equal(b[28:34], testMAC[:]) || !bytes.Equal(b[12:16], make([]byte, 4)) {
		t.Errorf("got %x", b)
	}
	want := []byte{53, 1, 3, 50, 4, 192, 0, 2, 9, 54, 4, 192, 0, 2, 1, 55, 7, 1, 3, 6, 26, 51, 58, 59, 255, 0}
	if got := b[headerLen:]; !bytes.HasPrefix(got, want) || len(bytes.Trim(got[len(want):], "\x00")) > 0 {
		t.Errorf("options %v", got)
	}
	if b := (query{kind: request, mac: testMAC, client: ip("192.0.2.9")}).bytes(); !bytes.Equal(b[12:16], addresses("192.0.2.9")) || b[headerLen+3] != optParams {
		t.Errorf("renewing: %v", b[:headerLen+10])
	}
}

func TestJudge(t *testing.T) {
	asked := time.Now()
	for _, tt := range []struct {
		name, yours string
		changed     []option
		refused     string // "" is a lease
	}{
		{name: "plain", yours: "192.0.2.9"},
		{name: "without router and name servers", yours: "192.0.2.9", changed: []option{{optRouter, nil}, {optDNS, nil}}},
		{name: "address alone, as in some clouds", yours: "10.128.0.7", changed: []option{{optMask, addresses("255.255.255.255")}, {optRouter, addresses("10.128.0.1")}, {optServer, addresses("169.254.169.254")}, {optDNS, addresses("169.254.169.254")}}},
		{name: "large frames", yours: "192.0.2.9", changed: []option{{optMTU, []byte{0x23, 0x29}}}},
		{name: "without an end", yours: "192.0.2.9", changed: []option{{optLease, number(forever)}}},
		{"no address", "0.0.0.0", nil, "address"},
		{"loopback", "127.0.0.2", []option{{optMask, addresses("255.0.0.0")}, {optRouter, nil}}, "address"},
		{"group", "224.0.0.1", nil, "address"},
		{"reserved", "240.0.0.1", nil, "address"},
		{"everybody", "255.255.255.255", nil, "address"},
		{"link-local", "169.254.3.3", nil, "address"},
		{"the subnet's own", "192.0.2.0", nil, "subnet's own"},
		{"broadcast", "192.0.2.255", nil, "broadcast"},
		{"no mask", "192.0.2.9", []option{{optMask, nil}}, "mask"},
		{"all of the internet on the link", "192.0.2.9", []option{{optMask, addresses("0.0.0.0")}}, "mask"},
		{"half of it", "192.0.2.9", []option{{optMask, addresses("128.0.0.0")}}, "mask"},
		{"mask with a hole", "192.0.2.9", []option{{optMask, addresses("255.0.255.0")}}, "mask"},
		{"no server", "192.0.2.9", []option{{optServer, nil}}, "server"},
		{"server on loopback", "192.0.2.9", []option{{optServer, addresses("127.0.0.1")}}, "server"},
		{"router elsewhere", "192.0.2.9", []option{{optRouter, addresses("198.51.100.1")}}, "router"},
		{"router on loopback", "192.0.2.9", []option{{optRouter, addresses("127.0.0.1")}}, "router"},
		{"itself as router", "192.0.2.9", []option{{optRouter, addresses("192.0.2.9")}}, "router"},
		{"broadcast as router", "192.0.2.9", []option{{optRouter, addresses("192.0.2.255")}}, "router"},
		{"name server on loopback", "192.0.2.9", []option{{optDNS, addresses("192.0.2.53", "127.0.0.53")}}, "name server"},
		{"tiny frames", "192.0.2.9", []option{{optMTU, []byte{0, 68}}}, "MTU"},
		{"huge frames", "192.0.2.9", []option{{optMTU, []byte{255, 255}}}, "MTU"},
		{"no lease time", "192.0.2.9", []option{{optLease, nil}}, "lease"},
		{"a lease of a second", "192.0.2.9", []option{{optLease, number(1)}}, "lease"},
	} {
		a, err := parse(reply(ack, 1, testMAC, tt.yours, tt.changed...))
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		l, err := judge(a, asked)
		if tt.refused == "" {
			if err != nil || l.Address.Addr() != ip(tt.yours) || !l.Obtained.Equal(asked) {
				t.Errorf("%s: got %+v, %v", tt.name, l, err)
			}
			continue
		}
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tt.refused) {
			t.Errorf("%s: got %+v, %v, want %q", tt.name, l, err, tt.refused)
		}
	}
}

// TestTimes: what a server says of renewing counts only where it leaves time for it.
func TestTimes(t *testing.T) {
	for _, tt := range []struct {
		lease, renew, rebind uint32
		want                 [3]time.Duration // renew, rebind, end
	}{
		{3600, 0, 0, [3]time.Duration{1800 * time.Second, 3150 * time.Second, time.Hour}},
		{3600, 60, 120, [3]time.Duration{time.Minute, 2 * time.Minute, time.Hour}},
		{3600, 1, 120, [3]time.Duration{time.Minute, 2 * time.Minute, time.Hour}},
		{3600, 0, 1, [3]time.Duration{1800 * time.Second, 3150 * time.Second, time.Hour}},
		{3600, 5000, 4000, [3]time.Duration{1800 * time.Second, 3150 * time.Second, time.Hour}},
		{3600, 300, 200, [3]time.Duration{100 * time.Second, 200 * time.Second, time.Hour}},
		{60, 0, 0, [3]time.Duration{30 * time.Second, 52500 * time.Millisecond, time.Minute}},
		{forever, 1, 2, [3]time.Duration{}},
	} {
		var l Lease
		l.times(answer{lease: tt.lease, renew: tt.renew, rebind: tt.rebind})
		if got := [3]time.Duration{l.Renew, l.Rebind, l.Expires}; got != tt.want {
			t.Errorf("%d %d %d: got %v, want %v", tt.lease, tt.renew, tt.rebind, got, tt.want)
		}
	}
}

// TestDatagram: what the packet socket sends is a right datagram, and what comes is taken apart as carefully.
func TestDatagram(t *testing.T) {
	message := query{kind: discover, mac: testMAC}.bytes()
	b := datagram(netip.IPv4Unspecified(), ip("255.255.255.255"), message)
	if checksum(b[:ipHeader]) != 0 || checksum(b[12:20], b[ipHeader:], []byte{0, ipUDP, b[24], b[25]}) != 0 {
		t.Errorf("checksums: %x", b[:28])
	}
	binary.BigEndian.PutUint16(b[20:], serverPort)
	binary.BigEndian.PutUint16(b[22:], clientPort)
	if got := payload(b); !bytes.Equal(got, message) {
		t.Errorf("got %d bytes of %d", len(got), len(message))
	}
	if got := payload(append(bytes.Clone(b), 1, 2, 3)); !bytes.Equal(got, message) { // Ethernet's padding
		t.Errorf("padded: got %d bytes of %d", len(got), len(message))
	}
	for name, change := range map[string]func(b []byte){
		"version 6":          func(b []byte) { b[0] = 6<<4 | 5 },
		"short header":       func(b []byte) { b[0] = 4<<4 | 4 },
		"long header":        func(b []byte) { b[0] = 4<<4 | 15; binary.BigEndian.PutUint16(b[2:], 60) },
		"longer than it is":  func(b []byte) { b[2] = 255 },
		"TCP":                func(b []byte) { b[9] = 6 },
		"first fragment":     func(b []byte) { b[6] = 0x20 },
		"last fragment":      func(b []byte) { b[7] = 3 },
		"from another port":  func(b []byte) { b[21] = 68 },
		"to another port":    func(b []byte) { b[23] = 69 },
		"longer than packet": func(b []byte) { b[24] = 255 },
		"no length":          func(b []byte) { b[24], b[25] = 0, 7 },
	} {
		bad := bytes.Clone(b)
		change(bad)
		if got := payload(bad); got != nil {
			t.Errorf("%s: %d bytes", name, len(got))
		}
	}
	if payload(b[:27]) != nil || payload(nil) != nil {
		t.Error("a cut packet was read")
	}
}

// FuzzAnswer reads packets. Whatever makes a lease is one that a machine can have.
func FuzzAnswer(f *testing.F) {
	wrap := func(message []byte) []byte {
		b := datagram(ip("192.0.2.1"), ip("255.255.255.255"), message)
		b[21], b[23] = serverPort, clientPort
		return b
	}
	f.Add(wrap(reply(offer, 7, testMAC, "192.0.2.9", option{optMTU, []byte{5, 220}}, option{optRenew, number(9)})))
	f.Add(wrap(reply(ack, 7, testMAC, "10.0.0.7", option{optMask, addresses("255.255.255.255")}, option{optRouter, addresses("10.1.1.1")})))
	f.Add(wrap(reply(nak, 7, testMAC, "0.0.0.0", option{optMask, nil})))
	f.Add([]byte{0x45})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := parse(payload(b))
		if err != nil {
			return
		}
		l, err := judge(a, time.Time{})
		if err != nil {
			return
		}
		p := l.Address
		if !p.IsValid() || p.Bits() < minPrefix || p.Addr().IsLoopback() || p.Overlaps(netip.MustParsePrefix("127.0.0.0/8")) {
			t.Errorf("address %v", p)
		}
		if l.Gateway.IsValid() && (l.Gateway == p.Addr() || l.Gateway.IsLoopback() || p.Bits() < 32 && !p.Contains(l.Gateway)) {
			t.Errorf("gateway %v of %v", l.Gateway, p)
		}
		if len(l.DNS) > MaxDNS || l.MTU != 0 && (l.MTU < MinMTU || l.MTU > MaxMTU) {
			t.Errorf("%d name servers, MTU %d", len(l.DNS), l.MTU)
		}
		if l.Expires != 0 && (l.Expires < minLease || l.Renew < minRenew || l.Renew >= l.Rebind || l.Rebind >= l.Expires) {
			t.Errorf("times %v %v %v", l.Renew, l.Rebind, l.Expires)
		}
	})
}
