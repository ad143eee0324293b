// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/agent/kbs/kbstest"
	"github.com/casemate/casemate/agent/network"
	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/standalone"
)

func TestIsBare(t *testing.T) {
	for text, want := range map[string]bool{
		"[network]\nmode = 'dhcp'\n":               true,
		"tee = 'tpm'\n":                            false,
		"[network]\nmode = 'dhcp'\nnonsense = 1\n": false, // then the door is parked, as for any other file that cannot be read
	} {
		file := filepath.Join(t.TempDir(), "casemate.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := isBare(file); got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
	if isBare(filepath.Join(t.TempDir(), "none")) {
		t.Error("a guest without configuration runs containers")
	}
}

// TestBareTellsCodes: the host reads codes and fixed phrases. What it learns of errors besides is its own: what initdata
// and DHCP servers say. Of others, which may quote the relying party, it reads nothing.
func TestBareTellsCodes(t *testing.T) {
	var out bytes.Buffer
	b := &bare{console: guest.NewConsole(&out)}
	for _, tt := range []struct {
		tell func()
		want string
	}{
		{func() { b.park(errors.New("canary")) }, "casemate: parked: serve: what the guest's configuration declares cannot be served\n"},
		{func() {
			b.park(fmt.Errorf("x: %w", &attestError{agent.Reason{Code: "attest-denied", Phrase: "phrase"}, errors.New("canary")}))
		}, "casemate: parked: attest-denied: phrase\n"},
		{func() { b.park(&doorError{agent.Reason{Code: "tee", Phrase: wrongTEE}, errors.New("no TPM")}) }, "casemate: failed: no TPM\ncasemate: parked: tee: " + wrongTEE + "\n"},
		{func() { b.waits(network.Wait{Code: "network-offer", Phrase: "no DHCP server answers"}) }, "casemate: waiting: network-offer: no DHCP server answers\n"},
		{func() { b.container("web", standalone.Running) }, "casemate: container: web running\n"},
	} {
		out.Reset()
		if tt.tell(); out.String() != tt.want {
			t.Errorf("got %q, want %q", out.String(), tt.want)
		}
	}
}

// unboundAttester shows evidence of another handshake.
type unboundAttester struct{ sampleAttester }

func (a unboundAttester) Evidence(ctx context.Context, _ evidence.ReportData) (json.RawMessage, error) {
	return a.sampleAttester.Evidence(ctx, evidence.ReportData{})
}

// TestBareAttests: a relying party that is not there yet is asked again; one that refuses has the last word.
func TestBareAttests(t *testing.T) {
	var out bytes.Buffer
	b := &bare{console: guest.NewConsole(&out)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	m := testMachine(config.Measured{KBS: config.KBS{URL: "http://" + nobody, PlainHTTP: true}})
	m.attester = sampleAttester{}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if client, err := b.attest(ctx, m); client != nil || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, %v", client, err)
	}
	if got := out.String(); got != "casemate: waiting: attest-unreachable: the relying party does not answer\n" {
		t.Errorf("the console says %q", got)
	}
	broker := kbstest.Start()
	defer broker.Close()
	m.conf.KBS.URL, m.attester = broker.URL, unboundAttester{}
	if _, err := b.attest(t.Context(), m); err == nil || !strings.Contains(fmt.Sprint(attestReason(err)), "attest-denied") {
		t.Errorf("got %v", err)
	}
	m.attester = sampleAttester{}
	if client, err := b.attest(t.Context(), m); err != nil || client == nil {
		t.Errorf("got %v, %v", client, err)
	}
}

// TestOwnNetworkAlone: where measured configuration has [network] no door opens, whoever starts the agent.
func TestOwnNetworkAlone(t *testing.T) {
	m := testMachine(config.Measured{Network: config.Network{Mode: config.NetworkDHCP}})
	door := new(agent.Door)
	if err := m.openDoor(door); !errors.Is(err, errOwnNetwork) {
		t.Errorf("got %v", err)
	}
	if p, err := policy.BuiltIn(false); err != nil || door.Open(p) {
		t.Errorf("the door was not parked: %v", err)
	}
}

// TestNetworkConfig: what the network is told is what configuration says.
func TestNetworkConfig(t *testing.T) {
	c, err := networkConfig(config.Network{Mode: config.NetworkStatic, Address: "192.0.2.7/24", Gateway: "192.0.2.1", DNS: []string{"192.0.2.53"}, Interface: "eth1", SLAAC: true})
	if err != nil || c.DHCP || !c.SLAAC || c.Interface != "eth1" || c.Static.Address.String() != "192.0.2.7/24" || c.Static.Gateway.String() != "192.0.2.1" || len(c.DNS) != 1 {
		t.Errorf("got %+v, %v", c, err)
	}
	if c, err := networkConfig(config.Network{Mode: config.NetworkDHCP}); err != nil || !c.DHCP || c.Static.Address.IsValid() || len(c.DNS) > 0 {
		t.Errorf("got %+v, %v", c, err)
	}
}
