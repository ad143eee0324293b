// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// TestExplain asks after a denied handshake why, in the guest and beside the owner's log.
func TestExplain(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-x.toml", "x", w.policy)
	w.register(t, "x", d.Digest)
	// Launched from another image than the registration pins.
	const other = "6f"
	if err := w.chip.Launch(strings.Repeat(other, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	config, run := w.path("explain.toml"), w.path("run")
	if err := fixture.GuestConfig(config, w.chip, d.File, w.registry.Addr, w.path("store")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Mkdir("/run/casemate", 0o700) == nil {
		defer os.Remove("/run/casemate")
	}
	guest := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "unshare", append([]string{"-m", "sh", "-c", `mount --bind "$0" /run/casemate && exec "$@"`, run, program("casemate-testsnp")}, args...)...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := guest("token", "--config", config); err == nil {
		t.Fatalf("attested: %s", out)
	}
	out, err := guest("explain", "attestation")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{
		`refused by rule "measurement"`, "claim           measurement\n", "sent            " + strings.Repeat(other, 48),
		"it is the digest of the initdata that was sent", "it binds the nonce and the key that were sent",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
	if strings.Contains(out, strings.Repeat(measurement, 48)) {
		t.Errorf("the guest, and with it the host, learns what would be accepted:\n%s", out)
	}
	reference := regexp.MustCompile(`reference +(\S+)`).FindStringSubmatch(out)
	if reference == nil {
		t.Fatalf("no reference in:\n%s", out)
	}
	// What the guest said of itself, which nobody could have looked up in it.
	report := string(w.must(t, "keybroker", "log", "--state", w.broker.State, "--guest", reference[1]))
	for _, want := range []string{`"error": "attesting: denied by the KBS`, `"stage": "check initdata against a fresh report"`, `"memory": "`, `"reference": "` + reference[1], `"stage": "handshake with the relying party"`} {
		if !strings.Contains(report, want) {
			t.Errorf("no %s in the guest's report:\n%s", want, report)
		}
	}
	if out, err := guest("timeline"); err != nil || !strings.Contains(out, "find the TEE\n") || !regexp.MustCompile(`FAILED  \d+ bytes  reference `+reference[1]+"\n").MatchString(out) {
		t.Errorf("%v:\n%s", err, out)
	}
	audit := w.path("audit.json")
	lines := w.must(t, "keybroker", "log", "--state", w.broker.State, "--id", reference[1], "--json")
	if err := os.WriteFile(audit, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	// At the owner's, from a copy of the transcript.
	out, err = guest("explain", "attestation", "--transcript", run+"/attestation.json", "--audit", audit)
	if err != nil || !strings.Contains(out, strings.Repeat(measurement, 48)) || !strings.Contains(out, "found           ") {
		t.Errorf("%v:\n%s", err, out)
	}
	t.Log(out)
}
