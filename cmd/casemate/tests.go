// SPDX-License-Identifier: Apache-2.0

//go:build vmtest

package main

import (
	"context"
	"errors"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/rootfs/vmtest/remote"
)

// serveTests runs test programs that lie in the guest for the test on the host.
func serveTests(ctx context.Context, console *guest.Console, reaper *container.Reaper) {
	console.Print("TEST BUILD", "this guest runs programs for a test on the host")
	go func() { // without vsock there is nothing to listen on, and the test finds out
		if err := remote.Serve(ctx, reaper.Command, power); err != nil {
			console.Print("failed", err.Error())
		}
	}()
}

func power(how string) error {
	switch how {
	case "off":
		return guest.PowerOff()
	case "reboot":
		return guest.Reboot()
	}
	return errors.New("unknown power state " + how)
}
