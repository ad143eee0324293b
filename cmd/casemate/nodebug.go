// SPDX-License-Identifier: Apache-2.0

//go:build !debug

package main

import (
	"context"
	"errors"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
)

// openShell does nothing: a released guest gives nobody a shell.
func openShell(context.Context, *guest.Console, *container.Reaper) {}

// debugPolicy leaves a policy as it is.
func debugPolicy(p agent.Policy) agent.Policy { return p }

// checkDebug refuses initdata of a debug guest: it was written for another image.
func (m *machine) checkDebug() error {
	if m.conf.Debug {
		return errors.New("checking initdata: debug = true, and this guest is none for debugging")
	}
	return nil
}
