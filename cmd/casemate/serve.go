// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"

	"github.com/casemate/casemate/keyprovider"
)

// runServe serves the guest's sockets for other tools until it is asked to end: the
// ocicrypt key provider that skopeo, containerd and podman call.
func runServe(ctx context.Context, args []string) error {
	o, _, err := parse(args, 0, 0, nil)
	if err != nil {
		return err
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	if m.conf.KeyProvider.Listen == "" {
		return fmt.Errorf("nothing to serve: keyprovider.listen is not set in %s", o.config)
	}
	client, err := m.attested(ctx)
	if err != nil {
		return err
	}
	if client == nil {
		return fmt.Errorf("nothing to serve: no KBS is configured in %s", o.config)
	}
	l, err := keyprovider.Listen(ctx, m.conf.KeyProvider.Listen)
	if err != nil {
		return err
	}
	m.steps.say("key provider on %s", m.conf.KeyProvider.Listen)
	keys := keyprovider.NewCache(client, client)
	defer keys.Clear()
	return keyprovider.Serve(ctx, l, &keyprovider.UnwrapService{
		Unwrapper: &keyprovider.Unwrapper{Keys: keys}, Log: m.log,
	}, m.log)
}
