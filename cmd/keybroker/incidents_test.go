// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// What a guest told is readable, and moves no terminal.
func TestLogOfAGuest(t *testing.T) {
	dir := t.TempDir()
	const id = "00000000000000aa"
	l, err := audit.Open(dir, slog.New(slog.DiscardHandler))
	must(t, err)
	defer l.Close()
	if code, _, errOut := command(t, "log", "--state", dir, "--guest", id); code != exitFailed || !strings.Contains(errOut, "no report of a guest") {
		t.Errorf("of nobody: %d %s", code, errOut)
	}
	hostile := "\x1b[2J\u202e\nfake line\u0085"
	must(t, l.KeepIncidents("web", id, evidence.Incidents{Dropped: 3, List: []evidence.Incident{
		{Seq: 1, Ago: 1 << 62, Stage: "policy", Request: "ExecProcessRequest", Subject: "app", Error: "denied", Remedy: `casemate-build agent-policy POD.yaml --exec 'app=["sh"]'`, Repeated: 4,
			Conditions: []evidence.IncidentCondition{{Rules: []string{"A", "b"}, Line: 7, Condition: "x == y", Field: "f", Given: `"g"`, Wanted: []string{"w1", "w2"}}, {Rules: []string{"C"}}},
			Prints:     []string{"it printed"}},
		{Seq: 9, Stage: hostile, Request: hostile, Subject: hostile, Error: hostile, Remedy: hostile, Prints: []string{hostile},
			Conditions: []evidence.IncidentCondition{{Rules: []string{hostile}, Line: 1, Condition: hostile, Field: hostile, Given: hostile, Wanted: []string{hostile}}}},
	}}))
	out := wantDone(t, "log", "--state", dir, "--guest", id)
	for _, want := range []string{
		"Z policy ExecProcessRequest app (and 4 times more)\n", "    error     denied\n", `    remedy    casemate-build agent-policy POD.yaml --exec 'app=["sh"]'` + "\n",
		"    rule      A > b\n", "    condition line 7: x == y\n", "    given     \"g\"\n", "    wanted    w1\n    wanted    w2\n", "  or\n", "    printed   it printed\n",
		"(7 incidents before the next were not kept", "(the guest could not keep 3 incidents)\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	asJSON := wantDone(t, "log", "--state", dir, "--guest", id, "--json")
	var got struct{ Incidents []audit.KeptIncident }
	must(t, json.Unmarshal([]byte(asJSON), &got))
	if len(got.Incidents) != 2 || got.Incidents[1].Incident.Error != hostile {
		t.Errorf("got %s", asJSON)
	}
	for _, text := range []string{out, asJSON} {
		if strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) || strings.Contains(text, "\nfake line") {
			t.Errorf("printed %q", text)
		}
	}
	must(t, l.KeepReport(id, true, []byte(`{"timeline":[]}`)))
	if out := wantDone(t, "log", "--state", dir, "--guest", id); !strings.HasPrefix(out, "{\n  \"timeline\": []\n}\n") || !strings.Contains(out, "ExecProcessRequest") {
		t.Errorf("printed %s", out)
	}
}
