// SPDX-License-Identifier: Apache-2.0

package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/containerd/ttrpc"

	aa "github.com/casemate/casemate/agent/api/attestation"
	cdh "github.com/casemate/casemate/agent/api/datahub"
)

// Peer is a daemon on another socket, ours or guest-components'. It is dialled at the
// first call, and once more when it has closed the connection. It is safe for
// concurrent use.
type Peer struct {
	path string

	mu     sync.Mutex
	client *ttrpc.Client
}

// NewPeer takes unix:///PATH and does not dial.
func NewPeer(address string) (*Peer, error) {
	path, ok := strings.CutPrefix(address, "unix://")
	if !ok || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("address %q: want unix:///PATH", address)
	}
	return &Peer{path: path}, nil
}

// Close ends the connection; the next call makes another one.
func (p *Peer) Close() error {
	p.mu.Lock()
	client := p.client
	p.client = nil
	p.mu.Unlock()
	if client == nil {
		return nil
	}
	return client.Close()
}

func (p *Peer) dial(ctx context.Context) (*ttrpc.Client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.client != nil {
		return p.client, nil
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", p.path)
	if err != nil {
		return nil, fmt.Errorf("connecting: %w", err)
	}
	opened := make(chan *ttrpc.Client, 1)
	// An end is noticed at once, so that the next call finds no dead connection.
	p.client = ttrpc.NewClient(conn, ttrpc.WithOnClose(func() { p.drop(<-opened) }))
	opened <- p.client
	return p.client, nil
}

// drop forgets a connection that has ended, unless another call has done so.
func (p *Peer) drop(client *ttrpc.Client) {
	p.mu.Lock()
	if p.client == client {
		p.client = nil
	}
	p.mu.Unlock()
	_ = client.Close() // it has ended already
}

// askOnce makes one call. Whether the peer heard it is not known when the connection ends.
func askOnce[In, Out any](ctx context.Context, p *Peer, in In, call func(*ttrpc.Client) func(context.Context, In) (Out, error)) (Out, error) {
	client, err := p.dial(ctx)
	if err != nil {
		var none Out
		return none, err
	}
	out, err := call(client)(ctx, in)
	if errors.Is(err, ttrpc.ErrClosed) {
		p.drop(client)
	}
	return out, err
}

// ask makes one call that may as well be made twice, and does so when the connection had ended.
func ask[In, Out any](ctx context.Context, p *Peer, in In, call func(*ttrpc.Client) func(context.Context, In) (Out, error)) (Out, error) {
	out, err := askOnce(ctx, p, in, call)
	if errors.Is(err, ttrpc.ErrClosed) {
		return askOnce(ctx, p, in, call)
	}
	return out, err
}

// RemoteHub fetches secrets from a data hub on another socket.
type RemoteHub struct{ Peer *Peer }

// Key returns what uri names, raw; the caller clears it.
func (h *RemoteHub) Key(ctx context.Context, uri string) ([]byte, error) {
	out, err := ask(ctx, h.Peer, &cdh.GetResourceRequest{ResourcePath: uri}, func(c *ttrpc.Client) func(context.Context, *cdh.GetResourceRequest) (*cdh.GetResourceResponse, error) {
		return cdh.NewTTRPCGetResourceServiceClient(c).GetResource
	})
	if err != nil {
		return nil, err
	}
	return out.Resource, nil
}

// RemoteAgent passes every call on to an attestation agent on another socket, which
// decides what it serves.
type RemoteAgent struct{ Peer *Peer }

// GetEvidence asks the peer.
func (a *RemoteAgent) GetEvidence(ctx context.Context, in *aa.GetEvidenceRequest) (*aa.GetEvidenceResponse, error) {
	return ask(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.GetEvidenceRequest) (*aa.GetEvidenceResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).GetEvidence
	})
}

// GetAdditionalEvidence asks the peer.
func (a *RemoteAgent) GetAdditionalEvidence(ctx context.Context, in *aa.GetAdditionalEvidenceRequest) (*aa.GetEvidenceResponse, error) {
	return ask(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.GetAdditionalEvidenceRequest) (*aa.GetEvidenceResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).GetAdditionalEvidence
	})
}

// GetToken asks the peer.
func (a *RemoteAgent) GetToken(ctx context.Context, in *aa.GetTokenRequest) (*aa.GetTokenResponse, error) {
	return ask(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.GetTokenRequest) (*aa.GetTokenResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).GetToken
	})
}

// ExtendRuntimeMeasurement refuses what checkEvent refuses, since the peer may be a
// program that does not, and asks the peer, once: an entry that was made is not made again.
func (a *RemoteAgent) ExtendRuntimeMeasurement(ctx context.Context, in *aa.ExtendRuntimeMeasurementRequest) (*aa.ExtendRuntimeMeasurementResponse, error) {
	if err := checkEvent(in.Domain, in.Operation, in.Content); err != nil {
		return nil, &failure{"extend runtime measurement failed", err}
	}
	return askOnce(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.ExtendRuntimeMeasurementRequest) (*aa.ExtendRuntimeMeasurementResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).ExtendRuntimeMeasurement
	})
}

// BindInitData asks the peer.
func (a *RemoteAgent) BindInitData(ctx context.Context, in *aa.BindInitDataRequest) (*aa.BindInitDataResponse, error) {
	return ask(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.BindInitDataRequest) (*aa.BindInitDataResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).BindInitData
	})
}

// GetTeeType asks the peer.
func (a *RemoteAgent) GetTeeType(ctx context.Context, in *aa.GetTeeTypeRequest) (*aa.GetTeeTypeResponse, error) {
	return ask(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.GetTeeTypeRequest) (*aa.GetTeeTypeResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).GetTeeType
	})
}

// GetAdditionalTees asks the peer.
func (a *RemoteAgent) GetAdditionalTees(ctx context.Context, in *aa.GetAdditionalTeesRequest) (*aa.GetAdditionalTeesResponse, error) {
	return ask(ctx, a.Peer, in, func(c *ttrpc.Client) func(context.Context, *aa.GetAdditionalTeesRequest) (*aa.GetAdditionalTeesResponse, error) {
		return aa.NewTTRPCAttestationAgentServiceClient(c).GetAdditionalTees
	})
}
