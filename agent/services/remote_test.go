// SPDX-License-Identifier: Apache-2.0

package services

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	"context"
	"github.com/containerd/ttrpc"

	aa "github.com/casemate/casemate/agent/api/attestation"
)

// dyingAgent records an entry and is gone before it says so, the first time.
type dyingAgent struct {
	Agent
	entries atomic.Int64
	die     func()
}

func (d *dyingAgent) ExtendRuntimeMeasurement(context.Context, *aa.ExtendRuntimeMeasurementRequest) (*aa.ExtendRuntimeMeasurementResponse, error) {
	if d.entries.Add(1) == 1 {
		d.die()
	}
	return &aa.ExtendRuntimeMeasurementResponse{}, nil
}

// lastConn hands on connections and remembers the last.
type lastConn struct {
	net.Listener
	last atomic.Pointer[net.Conn]
}

func (l *lastConn) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.last.Store(&c)
	}
	return c, err
}

// An attestation agent that ends between recording an entry and saying so is not asked to record it once more: a
// register cannot be taken back. A connection that had ended before costs the caller nothing.
func TestRemoteEntriesAreNotRepeated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	raw, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := &lastConn{Listener: raw}
	agent := &dyingAgent{}
	agent.die = func() { _ = (*l.last.Load()).Close() }
	server, err := ttrpc.NewServer()
	if err != nil {
		t.Fatal(err)
	}
	aa.RegisterTTRPCAttestationAgentServiceService(server, agent)
	go func() { _ = server.Serve(context.Background(), l) }()
	defer server.Close()
	peer, err := NewPeer("unix://" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	remote := &RemoteAgent{Peer: peer}
	entry := &aa.ExtendRuntimeMeasurementRequest{Domain: "d", Operation: "o", Content: "c"}
	if _, err := remote.ExtendRuntimeMeasurement(t.Context(), entry); err == nil {
		t.Error("no error from an agent that was gone")
	}
	if n := agent.entries.Load(); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
	if _, err := remote.ExtendRuntimeMeasurement(t.Context(), entry); err != nil {
		t.Errorf("over a new connection: %v", err)
	}
}
