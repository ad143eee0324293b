// SPDX-License-Identifier: Apache-2.0

//go:build !vmtest

package main

import (
	"context"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/guest"
)

// serveTests does nothing: a released guest runs no programs for anybody.
func serveTests(context.Context, *guest.Console, *container.Reaper) {}
