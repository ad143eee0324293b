// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
)

// TestUnprovedIsRefused: the flag alone takes a guest whose agent nothing proves, and
// the audit log keeps that it was given.
func TestUnprovedIsRefused(t *testing.T) {
	b := start(t, t.TempDir())
	text := fmt.Sprintf(registrationText, "sha256:"+strings.Repeat("11", 32), false, strings.Repeat("ab", 48))
	text = strings.Replace(text, "[snp]\n", "[snp]\nfirmware_only = true\n", 1)
	file := b.file("web.toml", text)
	args := b.owner("register", file)
	if code, _, out := command(t, args...); code != 1 || !strings.Contains(out, "agent is unproved") || !strings.Contains(out, "--accept-unproved=agent") {
		t.Errorf("got %d: %s", code, out)
	}
	if code, _, out := command(t, append(args, "--accept-unproved=initdata")...); code != 1 || !strings.Contains(out, "agent is unproved") {
		t.Errorf("got %d: %s", code, out)
	}
	if out := wantDone(t, append(args, "--accept-unproved=agent")...); !strings.Contains(out, "accepted without proof: agent") {
		t.Errorf("register printed %q", out)
	}
	if out := wantDone(t, "log", "--state", b.state); !strings.Contains(out, "accepted without proof: agent") {
		t.Errorf("the log has %q", out)
	}
}
