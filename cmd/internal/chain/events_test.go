// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/eventlog"
	"github.com/casemate/casemate/cmd/internal/fixture"
)

// TestRunsAreRecorded runs one image in two processes, which find one event log.
func TestRunsAreRecorded(t *testing.T) {
	w := newWorld(t)
	d := w.initdata(t, "initdata-e.toml", "e", w.policy)
	w.register(t, "e", d.Digest)
	image := w.image(t, "e")
	if err := w.chip.Launch(strings.Repeat(measurement, 48), d.HostData); err != nil {
		t.Fatal(err)
	}
	config, events := w.path("events.toml"), w.path("events")
	if err := fixture.GuestConfig(config, w.chip, d.File, w.registry.Addr, w.path("store")); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(config)
	if err == nil {
		err = os.WriteFile(config, append(text, "\n[eventlog]\nenable = true\n"...), 0o600)
	}
	if err == nil {
		err = os.Mkdir(events, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	if os.Mkdir(eventlog.DefaultDir, 0o700) == nil {
		defer os.Remove(eventlog.DefaultDir)
	}
	run := func() {
		// The test has a place of its own for the log: this machine may keep one too.
		cmd := exec.CommandContext(t.Context(), "unshare", "-m", "sh", "-c", `mount --bind "$0" "$1" && shift && exec "$@"`,
			events, eventlog.DefaultDir, program("casemate-testsnp"), "run", "--config", config, image, "--", "echo hello")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "hello\n") || !strings.Contains(string(out), "the event log is unbound") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run()
	run()
	log, err := eventlog.Open(events, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := log.Entries()
	if err != nil || len(got) != 3 {
		t.Fatalf("the log holds %q, %v, want an image and two containers", got, err)
	}
	var digest string
	if _, err := fmt.Sscanf(strings.TrimPrefix(got[0], `github.com/confidential-containers PullImage {"image":"`+image+`", `), `"digest":%q}`, &digest); err != nil || !strings.HasPrefix(digest, "sha256:") {
		t.Errorf("the image's entry is %q, %v", got[0], err)
	}
	for _, entry := range got[1:] {
		if !strings.HasPrefix(entry, `casemate StartContainer {"id":"run-`) || !strings.HasSuffix(entry, `,"image":"`+image+`","digest":"`+digest+`"}`) {
			t.Errorf("a container's entry is %q", entry)
		}
	}
	if got[1] == got[2] {
		t.Errorf("two containers have one entry: %q", got[1])
	}
}
