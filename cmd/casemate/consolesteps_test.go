// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/containerd/ttrpc"

	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/agent/pod"
)

// TestConsoleStepsTellNamesAlone: the console has the steps that were done, and no text besides.
func TestConsoleStepsTellNamesAlone(t *testing.T) {
	var out bytes.Buffer
	line := consoleSteps{guest.NewConsole(&out)}
	s := steps{w: line}
	if err := s.do("attest to the relying party", func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.do("open the door", func() error { return errors.New("canary") }); err == nil {
		t.Error("a failed step counts as done")
	}
	s.say("canary %s", "of the relying party")
	asked := 0
	methods := line.requests(map[string]ttrpc.Method{
		"UpdateInterface": func(context.Context, func(any) error) (any, error) { asked++; return nil, nil },
		"UpdateRoutes":    func(context.Context, func(any) error) (any, error) { asked++; return nil, errors.New("canary") },
	})
	for _, serve := range methods {
		_, _ = serve(t.Context(), nil)
	}
	want := regexp.MustCompile(`^casemate: step: attest to the relying party [^ ]+ at [0-9.hms]+\ncasemate: step: network interface [^ ]+ at [0-9.hms]+\n$`)
	if !want.Match(out.Bytes()) || asked != 2 {
		t.Errorf("%d requests served; the console says\n%s", asked, out.Bytes())
	}
}

// TestAttestReason: the host learns which of four it was, and nothing else.
func TestAttestReason(t *testing.T) {
	for code, err := range map[string]error{
		"attest-denied":      &kbs.StatusError{Status: 401},
		"attest-unreachable": fmt.Errorf("%w: canary", kbs.ErrUnavailable),
		"attest-untrusted":   fmt.Errorf("%w: canary", kbs.ErrProtocol),
		"attest-failed":      errors.New("canary"),
	} {
		var console bytes.Buffer
		m := &machine{log: slog.New(consoleLog{guest.NewConsole(&console)})}
		failure, ok := errors.AsType[*pod.Failure](hostPhrase("registry.example/app:1", fmt.Errorf("pulling: %w", m.notAttested(err))))
		if !ok {
			t.Fatalf("%s: no failure of a pull", code)
		}
		for _, text := range []string{failure.Phrase, console.String()} {
			if !strings.Contains(text, code+": ") || strings.Contains(text, "canary") {
				t.Errorf("%s: the host reads %q", code, text)
			}
		}
	}
}
