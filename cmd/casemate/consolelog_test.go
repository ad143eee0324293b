// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/guest"
)

// TestConsoleLogTellsNothing: the console is the host's, so of a line of the log only the fixed parts get there.
func TestConsoleLogTellsNothing(t *testing.T) {
	const canary = "CANARY-7f3a"
	var out strings.Builder
	log := slog.New(consoleLog{guest.NewConsole(&out)})
	log.Info("libcontainer: " + canary)
	log.Error("request failed", "method", "grpc.AgentService/CreateContainer", "error", errors.New(canary))
	log.Warn("request refused", "request", errors.New(canary), "container", canary, slog.Group("method", "request", canary))
	log.With("reference", canary).WithGroup("kbs").Warn("place has no image", "place", canary, "at", "f (a.go:1)")
	want := "casemate: log: request failed method=grpc.AgentService/CreateContainer\n" +
		"casemate: log: request refused\n" +
		"casemate: log: place has no image at=f (a.go:1)\n"
	if got := out.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
