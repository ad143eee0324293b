// SPDX-License-Identifier: Apache-2.0

package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/casemate/casemate/agent/network/dhcp"
)

func TestResolverText(t *testing.T) {
	for want, servers := range map[string][]netip.Addr{
		"# no name servers\n":                              nil,
		"nameserver 192.0.2.53\nnameserver 2001:db8::53\n": {netip.MustParseAddr("192.0.2.53"), netip.MustParseAddr("2001:db8::53")},
	} {
		if got := resolverText(servers); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestMeasuredServersWin: what configuration names is asked, whatever the lease says.
func TestMeasuredServersWin(t *testing.T) {
	own, given := []netip.Addr{netip.MustParseAddr("192.0.2.1")}, []netip.Addr{netip.MustParseAddr("198.51.100.1")}
	l := dhcp.Lease{Address: netip.MustParsePrefix("192.0.2.9/24"), DNS: given, MTU: 1400}
	for _, conf := range []Config{{DNS: own}, {}} {
		want := given
		if len(conf.DNS) > 0 {
			want = own
		}
		if s := conf.leased(l); s.DNS[0] != want[0] || s.Address != l.Address || s.MTU != 1400 || !s.same(conf.leased(l)) {
			t.Errorf("got %+v", s)
		}
	}
}

// TestWaits: each way in which no lease is had has its code.
func TestWaits(t *testing.T) {
	for code, err := range map[string]error{
		"network-offer":   dhcp.ErrNoOffer,
		"network-ack":     dhcp.ErrNak,
		"network-refused": fmt.Errorf("%w: %w", dhcp.ErrNoAck, fmt.Errorf("%w: router", dhcp.ErrRefused)),
		"network-card":    errors.New("network is down"),
	} {
		if w := waitFor(err); w.Code != code || w.Phrase == "" || !errors.Is(w.Err, err) {
			t.Errorf("%v: got %+v", err, w)
		}
	}
	if w := waitFor(fmt.Errorf("x: %w", dhcp.ErrNoAck)); w.Code != "network-ack" {
		t.Errorf("got %+v", w)
	}
}

// TestNoSuchCard: it is waited for, with one word, until the guest is switched off.
func TestNoSuchCard(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if k, err := Up(ctx, Config{Interface: "no-such-card", DHCP: true}, func(w Wait) { t.Errorf("told %+v", w) }); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %+v, %v", k, err)
	}
}
