// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/agent/kbs"
)

func TestTimeline(t *testing.T) {
	line := timeline{filepath.Join(t.TempDir(), "run", "timeline.jsonl")}
	line.boot([]guest.Step{{Name: "mounts", Took: 20 * time.Millisecond}, {Name: "modules", Took: 30 * time.Millisecond}})
	s := steps{io.Discard, line}
	if err := s.do("pull", func() error { time.Sleep(2 * time.Millisecond); return nil }); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("canary of an error")
	if err := s.do("attest to the relying party", func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	list, err := readTimeline(line.path)
	if err != nil || len(list) != 4 {
		t.Fatalf("got %+v, %v", list, err)
	}
	for i, want := range []stage{{Name: "boot: mounts", Took: 20_000}, {Name: "boot: modules", Took: 30_000}, {Name: "pull"}, {Name: "attest to the relying party", Failed: true}} {
		got := list[i]
		if got.Name != want.Name || got.Failed != want.Failed || want.Took > 0 && got.Took != want.Took || got.At <= 0 || i > 0 && got.At < list[i-1].At {
			t.Errorf("stage %d is %+v, want %+v", i, got, want)
		}
	}
	if d := list[1].At - list[0].At; d != 20_000 || list[2].Took < 2000 {
		t.Errorf("the second step starts %d us behind the first, the pull took %d", d, list[2].Took)
	}
	var out strings.Builder
	if err := printTimeline(&out, timelineNotes{Memory: "lazy"}, append(list, stage{Name: "\x1b[2J"})); err != nil || strings.Contains(out.String(), "\x1b") || !strings.Contains(out.String(), "attest to the relying party  FAILED\n") {
		t.Errorf("%v: %s", err, out.String())
	}
	if raw, err := os.ReadFile(line.path); err != nil || strings.Contains(string(raw), "canary") {
		t.Errorf("the timeline repeats errors: %s, %v", raw, err)
	}
}

// Several processes write at once, and one was cut off by a crash: what is whole is read,
// and the file does not grow without end.
func TestTimelineIsShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "timeline.jsonl")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				timeline{path}.add(stage{Name: strings.Repeat("x", 50), At: 1})
			}
		})
	}
	wg.Wait()
	info, err := os.Stat(path)
	if err != nil || info.Size() > maxTimeline+8*maxStage || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	whole, err := readTimeline(path)
	if err != nil || len(whole) < 100 {
		t.Fatalf("%d stages, %v", len(whole), err)
	}
	small := filepath.Join(t.TempDir(), "timeline.jsonl")
	if err := os.WriteFile(small, []byte("{\"stage\":\"a\",\"at_us\":1,\"took_us\":2}\n{\"stage\":\"b\",\"at_\n{\"other\":1}\n{\"stage\":\"c\",\"at_us\":1,\"took_us\":2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := readTimeline(small); err != nil || len(list) != 2 || list[1].Name != "c" {
		t.Errorf("got %+v, %v", list, err)
	}
}

func TestMemoryNote(t *testing.T) {
	for _, tt := range []struct{ meminfo, cmdline, want string }{
		{"MemTotal: 8 kB\nUnaccepted:      4194304 kB\n", "quiet\n", "lazy: 4194304 kB"},
		{"MemTotal: 8 kB\nUnaccepted:      0 kB\n", "ro accept_memory=eager\n", "EAGER: accept_memory"},
		{"MemTotal: 8 kB\n", "accept_memory=lazy\n", "EAGER, or"},
	} {
		if got := memoryNote(tt.meminfo, tt.cmdline); !strings.HasPrefix(got, tt.want) {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}

func TestGuestReport(t *testing.T) {
	m := &machine{steps: steps{io.Discard, timeline{filepath.Join(t.TempDir(), "timeline.jsonl")}}}
	m.steps.line.add(stage{Name: "pull", At: 1, Took: 2})
	raw := m.report(kbs.Transcript{KBS: "https://kbs", Sent: []byte(`{"canary":1}`), Claims: []byte(`{"canary":2}`), Error: "denied"})
	var r guestReport
	if err := json.Unmarshal(raw, &r, json.RejectUnknownMembers(true)); err != nil || r.Handshake.Error != "denied" || len(r.Timeline) == 0 || r.Timeline[len(r.Timeline)-1] != (stage{Name: "pull", At: 1, Took: 2}) {
		t.Errorf("got %s, %v", raw, err)
	}
	if strings.Contains(string(raw), "canary") {
		t.Errorf("the report repeats evidence or token: %s", raw)
	}
	if raw := (&machine{}).report(kbs.Transcript{Error: strings.Repeat("x", 1<<20)}); raw != nil {
		t.Errorf("a report of %d bytes", len(raw))
	}
}
