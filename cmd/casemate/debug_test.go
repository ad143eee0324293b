// SPDX-License-Identifier: Apache-2.0

//go:build debug

package main

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/api/kata"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

type refuseAll struct{}

var errRefused = errors.New("refused")

func (refuseAll) Allow(context.Context, string, proto.Message) error { return errRefused }

// TestDebugFreesExecAlone: everything but running programs stays the tenant's to allow.
func TestDebugFreesExecAlone(t *testing.T) {
	p := debugPolicy(refuseAll{}).(agent.Decider)
	for request, free := range map[string]bool{
		"ExecProcessRequest": true, "WriteStreamRequest": true, "CreateContainerRequest": false, "CopyFileRequest": false, "SetPolicyRequest": false,
	} {
		_, err := p.Decide(t.Context(), request, &kata.ExecProcessRequest{})
		if free != (err == nil) || free != (p.Allow(t.Context(), request, &kata.ExecProcessRequest{}) == nil) {
			t.Errorf("%s: %v", request, err)
		}
	}
}

// TestDebugGuestNeedsDebugInitData: it cannot attest in the name of another guest.
func TestDebugGuestNeedsDebugInitData(t *testing.T) {
	for _, tt := range []struct {
		initdata  []byte
		debug, ok bool
	}{{nil, false, true}, {[]byte("x"), false, false}, {[]byte("x"), true, true}} {
		m := testMachine(config.Measured{Debug: tt.debug})
		m.initdata = tt.initdata
		if err := m.checkDebug(); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
