// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/containerd/ttrpc"
	"golang.org/x/sync/errgroup"

	"github.com/casemate/casemate/agent/api/datahub"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

const resourceCalls = 1000

// getResource asks the guest's data hub for a secret in a thousand calls at once, counts
// the handshakes that keybroker's audit log has, and the memory before and after.
func getResource(ctx context.Context) ([]figure, error) {
	b, err := prepareGuest(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	socket := b.path("cdh.sock")
	guest, err := b.serve(ctx, socket, fmt.Sprintf("\n[services]\ndata_hub = %q\n", "unix://"+socket))
	if err != nil {
		return nil, err
	}
	defer guest.Close()
	before := memory(guest.Pid(), "VmRSS")
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	hub := datahub.NewTTRPCGetResourceServiceClient(client)
	calls, callsCtx := errgroup.WithContext(ctx)
	start := time.Now()
	for range resourceCalls {
		calls.Go(func() error {
			out, err := hub.GetResource(callsCtx, &datahub.GetResourceRequest{ResourcePath: benchKey})
			if err == nil && !bytes.Equal(out.Resource, b.kek) {
				err = errors.New("another secret than the one stored")
			}
			return err
		})
	}
	if err := calls.Wait(); err != nil {
		return nil, fmt.Errorf("%w; the guest: %s", err, guest.Output())
	}
	took := time.Since(start)
	after := memory(guest.Pid(), "VmRSS")
	log, err := fixture.Run(ctx, "bin/keybroker", "log", "--state", b.broker.State, "--json")
	if err != nil {
		return nil, err
	}
	handshakes := float64(bytes.Count(log, []byte(`"event":"attest"`)))
	return []figure{
		{name: "get-resource-1000", value: took.Seconds() * 1000, unit: "ms", budget: "-", met: true},
		{name: "get-resource-1000-handshakes", value: handshakes, unit: "handshakes", budget: "=1", met: handshakes == 1},
		{name: "get-resource-rss-before", value: before, unit: "MiB", budget: "-", met: before > 0},
		{name: "get-resource-rss-after", value: after, unit: "MiB", budget: "<=64MiB", met: after > 0 && after <= 64},
	}, nil
}
