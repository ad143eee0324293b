// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

func told(text string) evidence.Incidents {
	return evidence.Incidents{List: []evidence.Incident{{Seq: 1, Stage: "policy", Error: text}}}
}

func readIncidents(t *testing.T, dir, id string) []KeptIncident {
	t.Helper()
	list, err := ReadIncidents(dir, id)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// However many guests a workload has, or makes up by handshakes, another's are not pushed out by them.
func TestIncidentsOfAnotherWorkloadStay(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	const quiet = "00000000000000aa"
	if err := l.KeepIncidents("quiet", quiet, told("kept")); err != nil {
		t.Fatal(err)
	}
	for n := range 2 * maxIncidentGuests {
		if err := l.KeepIncidents("loud", fmt.Sprintf("%016x", n+0x1000), told("x")); err != nil {
			t.Fatal(err)
		}
	}
	if list := readIncidents(t, dir, quiet); len(list) != 1 || list[0].Incident.Error != "kept" || list[0].Workload != "quiet" {
		t.Errorf("kept %+v", list)
	}
	files, err := filepath.Glob(filepath.Join(dir, incidentDir, "*", "*"))
	if err != nil || len(files) != maxIncidentGuests {
		t.Errorf("%d files, %v", len(files), err)
	}
	if list := readIncidents(t, dir, fmt.Sprintf("%016x", 2*maxIncidentGuests-1+0x1000)); len(list) != 1 {
		t.Errorf("the newest guest: %+v", list)
	}
	if list := readIncidents(t, dir, fmt.Sprintf("%016x", 0x1000)); len(list) != 0 {
		t.Errorf("the oldest guest: %+v", list)
	}
}

// The piece of a line that a full disk or a crash left hides no other.
func TestPieceOfAnIncident(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	const id = "00000000000000aa"
	if err := l.KeepIncidents("web", id, told("one")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, incidentDir, "web", id+incidentsFirst)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if err := appendFile(path, []byte("\n{\"received\":")); err != nil {
		t.Fatal(err)
	}
	if err := l.KeepIncidents("web", id, told("two\n{}")); err != nil {
		t.Fatal(err)
	}
	if list := readIncidents(t, dir, id); len(list) != 2 || list[1].Incident.Error != "two\n{}" {
		t.Errorf("got %+v", list)
	}
}

func TestIncidentNames(t *testing.T) {
	l, _ := open(t, t.TempDir())
	for _, name := range [][2]string{{"web", "../../x"}, {"web", ""}, {"..", "00000000000000aa"}, {"a/b", "00000000000000aa"}, {"", "00000000000000aa"}} {
		if err := l.KeepIncidents(name[0], name[1], told("x")); err == nil {
			t.Errorf("%q was kept", name)
		}
	}
	if _, err := ReadIncidents(t.TempDir(), "*"); err == nil {
		t.Error("a pattern was read")
	}
	// A state directory whose name is a pattern is itself alone.
	dir := filepath.Join(t.TempDir(), "[a]*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l, _ = open(t, dir)
	if err := l.KeepIncidents("web", "00000000000000aa", told("x")); err != nil {
		t.Fatal(err)
	}
	if list := readIncidents(t, dir, "00000000000000aa"); len(list) != 1 {
		t.Errorf("got %+v", list)
	}
}
