// SPDX-License-Identifier: Apache-2.0

//go:build !debug

package main

import (
	"testing"

	"github.com/casemate/casemate/agent/policy"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
)

// A released guest neither takes a debug guest's initdata nor changes a policy.
func TestReleasedGuestIsNoneForDebugging(t *testing.T) {
	if err := testMachine(config.Measured{Debug: true}).checkDebug(); err == nil {
		t.Error("initdata of a debug guest was taken")
	}
	if err := testMachine(config.Measured{}).checkDebug(); err != nil {
		t.Error(err)
	}
	p, err := policy.BuiltIn(false)
	if err != nil {
		t.Fatal(err)
	}
	if debugPolicy(p) != p {
		t.Error("the policy is another one")
	}
}
