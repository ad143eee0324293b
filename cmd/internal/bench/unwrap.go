// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/casemate/casemate/keyprovider"
	pb "github.com/casemate/casemate/keyprovider/keyproviderpb"
)

const (
	unwrapCallers   = 16
	unwrapTime      = 3 * time.Second
	minUnwrapSecond = 5000
)

// unwrap measures UnwrapKey calls a second of the guest's own program on its unix
// socket. The token and the key are there before the watch starts; the callers run on
// the same cores.
func unwrap(ctx context.Context) ([]figure, error) {
	b, err := prepareGuest(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	call, want, err := unwrapCall(b.kek)
	if err != nil {
		return nil, err
	}
	socket := b.path("keyprovider.sock")
	guest, err := b.serve(ctx, socket, fmt.Sprintf("\n[keyprovider]\nlisten = %q\n", "unix://"+socket))
	if err != nil {
		return nil, err
	}
	defer guest.Close()
	if _, err := unwrapFor(ctx, socket, call, want, unwrapTime/10); err != nil {
		return nil, fmt.Errorf("%w; the guest: %s", err, guest.Output())
	}
	var rates []float64
	for range 3 {
		n, err := unwrapFor(ctx, socket, call, want, unwrapTime)
		if err != nil {
			return nil, fmt.Errorf("%w; the guest: %s", err, guest.Output())
		}
		rates = append(rates, float64(n)/unwrapTime.Seconds())
	}
	value := median(rates)
	return []figure{{name: "unwrap", value: value, unit: "calls/s", budget: ">=5000/s", met: value >= minUnwrapSecond}}, nil
}

// unwrapCall is the document that ocicrypt sends for one layer, and what the options in
// the answer must be.
func unwrapCall(kek []byte) (call, want []byte, err error) {
	want, err = json.Marshal(map[string]any{
		"symkey": bytes.Repeat([]byte{7}, 32), "digest": "sha256:" + fmt.Sprintf("%064x", 1),
		"cipheroptions": map[string][]byte{"nonce": make([]byte, 16)},
	})
	if err != nil {
		return nil, nil, err
	}
	packet, err := keyprovider.Wrap(kek, benchKey, want)
	if err != nil {
		return nil, nil, err
	}
	call, err = json.Marshal(map[string]any{
		"op": "keyunwrap", "keywrapparams": map[string]any{},
		"keyunwrapparams": map[string]any{"dc": map[string]any{"Parameters": map[string]any{}}, "annotation": packet},
	})
	return call, want, err
}

// unwrapFor counts the calls that all callers together finish in a time, each on a
// connection of its own and each answer compared.
func unwrapFor(ctx context.Context, socket string, call, want []byte, span time.Duration) (int64, error) {
	var count atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	var first []byte
	for i := range unwrapCallers {
		conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		client := pb.NewKeyProviderServiceClient(conn)
		answer, err := client.UnWrapKey(ctx, &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: call})
		if err != nil {
			return 0, err
		}
		if i == 0 {
			if first = answer.KeyProviderKeyWrapProtocolOutput; !sameOptions(first, want) {
				return 0, errors.New("unwrapping: the answer holds other layer options")
			}
		}
		group.Go(func() error {
			for end := time.Now().Add(span); time.Now().Before(end); count.Add(1) {
				answer, err := client.UnWrapKey(ctx, &pb.KeyProviderKeyWrapProtocolInput{KeyProviderKeyWrapProtocolInput: call})
				if err != nil {
					return err
				}
				if !bytes.Equal(answer.KeyProviderKeyWrapProtocolOutput, first) {
					return errors.New("unwrapping: two answers differ")
				}
			}
			return nil
		})
	}
	err := group.Wait()
	return count.Load(), err
}

// sameOptions reads the answer, whose bytes are an array of numbers.
func sameOptions(answer, want []byte) bool {
	var out struct {
		Results struct {
			Options []uint16 `json:"optsdata"`
		} `json:"keyunwrapresults"`
	}
	if json.Unmarshal(answer, &out) != nil || len(out.Results.Options) != len(want) {
		return false
	}
	for i, n := range out.Results.Options {
		if n != uint16(want[i]) {
			return false
		}
	}
	return true
}
