// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"crypto"
	"crypto/sha512"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

func eventLog(events ...[]byte) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), make([]byte, 16)...)
	head := le.AppendUint32(le.AppendUint32(nil, 1), 3)
	head = le.AppendUint32(append(head, make([]byte, 20)...), uint32(len(spec)))
	return slices.Concat(head, spec, slices.Concat(events...))
}

func logEvent(index, kind uint32, fill byte) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, index), kind), 1)
	b = append(le.AppendUint16(b, 0x0C), slices.Repeat([]byte{fill}, 48)...)
	return append(le.AppendUint32(b, 2), 'h', 'i')
}

func TestReplayEventLog(t *testing.T) {
	end := slices.Repeat([]byte{0xFF}, 8)
	got, err := evidence.ReplayEventLog(eventLog(logEvent(1, 4, 1), logEvent(1, 3, 9), logEvent(4, 6, 2), end, []byte("unused")))
	if err != nil {
		t.Fatal(err)
	}
	var want [4][48]byte
	want[0] = sha512.Sum384(append(make([]byte, 48), slices.Repeat([]byte{1}, 48)...))
	want[3] = sha512.Sum384(append(make([]byte, 48), slices.Repeat([]byte{2}, 48)...))
	if got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	many := logEvent(1, 4, 1)
	many[8] = 200
	for name, tc := range map[string]struct {
		raw  []byte
		want string
	}{
		"empty":              {nil, "first event"},
		"no such register":   {eventLog(logEvent(5, 4, 1)), "register index 5"},
		"register 0 is MRTD": {eventLog(logEvent(0, 4, 1)), "register index 0"},
		"200 digests":        {eventLog(many), "200 digests"},
		"cut":                {eventLog(logEvent(1, 4, 1))[:100], "want 48"},
		"over the cap":       {make([]byte, evidence.MaxEventLogSize+1), "at most"},
	} {
		if _, err := evidence.ReplayEventLog(tc.raw); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func FuzzEventLog(f *testing.F) {
	f.Add(eventLog(logEvent(1, 4, 1), logEvent(2, 4, 2)))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := evidence.ReplayEventLog(raw); err != nil && !strings.Contains(err.Error(), "event log") {
			t.Fatal(err)
		}
		if _, err := evidence.TPMLogEvents(raw, 0, crypto.SHA384); err != nil && !strings.Contains(err.Error(), "event log") {
			t.Fatal(err)
		}
	})
}

// TestReplayRealEventLog holds a log of real firmware against the quote of the same guest.
func TestReplayRealEventLog(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/google/go-tdx-guest").Output()
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(dir)), "testing/testdata/ccel", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	log := read("ccel_data.dat")
	q, err := evidence.ParseTDXQuote(read("cos-113-tdx-quote.dat"))
	if err != nil {
		t.Fatal(err)
	}
	registers, err := evidence.ReplayEventLog(log)
	if err != nil {
		t.Fatal(err)
	}
	for i := range registers {
		if got, want := registers[i][:], q.Body.RTMR(i); string(got) != string(want) {
			t.Errorf("RTMR%d replays to %x, quoted %x", i, got, want)
		}
	}
}
