// SPDX-License-Identifier: Apache-2.0

package attest

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// headEvent is the first event of a log, in the old form.
func headEvent(data []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 0)
	out = binary.LittleEndian.AppendUint32(out, evNoAction)
	out = append(out, make([]byte, 20)...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	return append(out, data...)
}

func event(algorithm uint16, digest, data []byte) []byte {
	out := binary.LittleEndian.AppendUint32(nil, 1)
	out = binary.LittleEndian.AppendUint32(out, 0x80000001)
	out = binary.LittleEndian.AppendUint32(out, 1)
	out = binary.LittleEndian.AppendUint16(out, algorithm)
	out = append(out, digest...)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(data)))
	return append(out, data...)
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func writeLog(t *testing.T, area []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "CCEL")
	if err := os.WriteFile(path, area, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEventLogIsCutBehindItsLastEvent(t *testing.T) {
	events := join(headEvent([]byte("Spec ID Event03")), event(0x0C, make([]byte, 48), bytes.Repeat([]byte{0xFF}, 24)),
		event(0x0B, make([]byte, 32), nil), event(0x0D, make([]byte, 64), []byte("x")), event(0x04, make([]byte, 20), nil))
	ff := bytes.Repeat([]byte{0xFF}, 8)
	for name, tail := range map[string][]byte{
		"rest of ones": bytes.Repeat([]byte{0xFF}, 4096), "rest of zeros": make([]byte, 4096), "no rest": nil,
	} {
		got, err := readEventLog(writeLog(t, join(events, tail)), nil)
		if err != nil || !bytes.Equal(got, join(events, ff)) {
			t.Errorf("%s: got %d bytes, want %d (%v)", name, len(got), len(events)+8, err)
		}
	}
	for name, path := range map[string]string{
		"no file": t.TempDir() + "/none", "empty file": writeLog(t, nil), "unused area": writeLog(t, make([]byte, 64)),
	} {
		if got, err := readEventLog(path, nil); got != nil || err != nil {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
}

func TestEventLogRefuses(t *testing.T) {
	good := headEvent([]byte("Spec ID Event03"))
	for _, tc := range []struct {
		name string
		area []byte
		want string
	}{
		{"cut inside an event", good[:len(good)-1], "malformed event at byte 0"},
		{"cut inside the second event", join(good, []byte{1, 0, 0, 0}), "malformed event at byte"},
		{"unknown digest", join(good, event(0x99, make([]byte, 48), nil)), "malformed event at byte"},
		{"4 GiB of digests", join(good, event(0x0C, make([]byte, 48), nil)[:8], []byte{0xFF, 0xFF, 0xFF, 0xFF}), "malformed event"},
		{"event of 4 GiB", join(good[:28], []byte{0xFF, 0xFF, 0xFF, 0xFF}), "malformed event at byte 0"},
		{"huge", make([]byte, evidence.MaxEventLogSize), "more than"},
	} {
		if got, err := readEventLog(writeLog(t, tc.area), nil); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %d bytes, error %v, want %q", tc.name, len(got), err, tc.want)
		}
	}
	if _, err := readEventLog(t.TempDir(), nil); err == nil {
		t.Error("read a directory")
	}
}

// The log that a real TD showed, recorded by go-tdx-guest.
func TestRecordedEventLog(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/go-tdx-guest").Output()
	if err != nil {
		t.Skipf("no source of go-tdx-guest to take the log from: %v", err)
	}
	path := filepath.Join(strings.TrimSpace(string(dir)), "testing", "testdata", "ccel", "ccel_data.dat")
	area, err := os.ReadFile(path)
	if err != nil {
		t.Skipf("no recorded log: %v", err)
	}
	size, err := eventsSize(area)
	if err != nil {
		t.Fatal(err)
	}
	if size < 10000 || len(bytes.Trim(area[size:], "\xff")) != 0 {
		t.Errorf("%d of %d bytes are events, and what follows is not unused", size, len(area))
	}
}

func TestTDXEvidenceCarriesTheEventLog(t *testing.T) {
	events := headEvent([]byte("Spec ID Event03"))
	kernel := tdxKernel(func(q []byte) []byte { return q })
	a, err := Detect(Config{TSM: kernel.client(), EventLog: writeLog(t, join(events, make([]byte, 64)))})
	if err != nil {
		t.Fatal(err)
	}
	text, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil))
	if err != nil {
		t.Fatal(err)
	}
	e, err := evidence.ParseTDXEvidence(text)
	if err != nil || !bytes.Equal(e.EventLog, join(events, logEndMark)) {
		t.Errorf("event log is %x, %v", e.EventLog, err)
	}
	a, err = Detect(Config{TSM: kernel.client(), EventLog: writeLog(t, []byte("not a log"))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Evidence(t.Context(), evidence.WorkloadReportData(nil)); err == nil {
		t.Error("a malformed event log was left out in silence")
	}
}

func FuzzEventsSize(f *testing.F) {
	f.Add(join(headEvent([]byte("Spec ID Event03")), event(0x0C, make([]byte, 48), nil), make([]byte, 16)))
	f.Fuzz(func(t *testing.T, area []byte) {
		if size, err := eventsSize(area); err == nil && (size < 0 || size > len(area)) {
			t.Fatalf("%d of %d bytes", size, len(area))
		}
	})
}
