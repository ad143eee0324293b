// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/guest"
	"github.com/casemate/casemate/agent/kbs"
)

const (
	// defaultTimeline is where stages are written down, in memory, a JSON object a line.
	defaultTimeline = "/run/casemate/timeline.jsonl"
	// maxTimeline is some hundred stages; later ones are not written down.
	maxTimeline = 32 << 10
	// maxStage bounds a line.
	maxStage = 1 << 10
)

// stage is one thing that was waited for. Its name is ours, never the host's.
type stage struct {
	Name string `json:"stage"`
	// At and Took are microseconds; At counts from when the kernel started, by its own
	// clock, which the host can slow down; firmware was before that, at negative times.
	At     int64 `json:"at_us"`
	Took   int64 `json:"took_us"`
	Failed bool  `json:"failed,omitzero"`
	// Bytes is what came over the network, or was sent; Retries how often that was begun again.
	Bytes   int64 `json:"bytes,omitzero"`
	Retries int   `json:"retries,omitzero"`
	// ID is the relying party's reference of a handshake.
	ID string `json:"id,omitempty"`
}

// timeline writes stages down for several processes. Its zero value writes nothing.
type timeline struct{ path string }

// add is best effort: no stage fails because it could not be written down.
func (t timeline) add(s stage) {
	if t.path == "" {
		return
	}
	line, err := json.Marshal(s)
	if err != nil || os.MkdirAll(filepath.Dir(t.path), 0o700) != nil {
		return
	}
	file, err := os.OpenFile(t.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() < maxTimeline {
		_, _ = file.Write(append(line, '\n')) // in one piece: O_APPEND
	}
}

// handshake writes one down that has just ended.
func (t timeline) handshake(h kbs.Transcript) {
	t.add(stage{Name: "handshake with the relying party", At: sinceStart().Microseconds() - h.Micros, Took: h.Micros, Failed: h.Error != "", Bytes: int64(len(h.Sent)), ID: h.Reference})
}

// boot writes the steps of PID 1 down, the last of which has just ended.
func (t timeline) boot(steps []guest.Step) {
	at := sinceStart()
	for _, s := range steps {
		at -= s.Took
	}
	for _, s := range steps {
		t.add(stage{Name: "boot: " + s.Name, At: at.Microseconds(), Took: s.Took.Microseconds()})
		at += s.Took
	}
}

// sinceStart is the time since the kernel started.
func sinceStart() time.Duration {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// readTimeline reads the stages in path. A line that a crash cut is passed over.
func readTimeline(path string) ([]stage, error) {
	raw, err := readCapped(path, maxTimeline+maxStage)
	if err != nil {
		return nil, err
	}
	var list []stage
	lines := bufio.NewScanner(bytes.NewReader(raw))
	for lines.Scan() {
		var s stage
		if json.Unmarshal(lines.Bytes(), &s, json.RejectUnknownMembers(true)) == nil && s.Name != "" {
			list = append(list, s)
		}
	}
	return list, lines.Err()
}

// memoryNote says from /proc/meminfo and /proc/cmdline how the guest's memory was
// accepted: all at once, before anything ran, is what makes boots of large guests slow.
func memoryNote(meminfo, cmdline string) string {
	if strings.Contains(" "+strings.TrimSpace(cmdline)+" ", " accept_memory=eager ") {
		return "EAGER: accept_memory=eager had all memory accepted before the kernel went on"
	}
	for line := range strings.Lines(meminfo) {
		if rest, ok := strings.CutPrefix(line, "Unaccepted:"); ok {
			return "lazy: " + strings.TrimSpace(rest) + " not accepted yet"
		}
	}
	return "EAGER, or not a matter here: this kernel knows of no memory left to accept"
}

func memory() string {
	meminfo, err1 := os.ReadFile("/proc/meminfo")
	cmdline, err2 := os.ReadFile("/proc/cmdline")
	if errors.Join(err1, err2) != nil {
		return ""
	}
	return memoryNote(string(meminfo), string(cmdline))
}

// guestReport is what the relying party is told of this guest after a handshake: how it
// ended, and how long the guest took to come so far. The evidence it has.
type guestReport struct {
	Handshake kbs.Transcript `json:"handshake"`
	Memory    string         `json:"memory,omitempty"`
	Firmware  string         `json:"firmware,omitempty"`
	Timeline  []stage        `json:"timeline"`
}

func (m *machine) report(t kbs.Transcript) []byte {
	t.Sent, t.Claims = nil, nil
	early := earlyStages()
	r := guestReport{Handshake: t, Memory: memory(), Firmware: firmwareNote(early), Timeline: append([]stage{}, early...)}
	if list, err := readTimeline(m.steps.line.path); err == nil {
		r.Timeline = append(r.Timeline, list...)
	}
	raw, err := json.Marshal(r)
	if err != nil || len(raw) > evidence.MaxGuestReport {
		return nil
	}
	return raw
}

// runTimeline prints what this guest waited for since it booted.
func runTimeline(_ context.Context, args []string) error {
	path, asJSON := defaultTimeline, false
	if _, err := parse(args, 0, 0, func(s *flag.FlagSet) {
		s.StringVar(&path, "timeline", path, "the file with the stages, saved from a guest")
		s.BoolVar(&asJSON, "json", false, "print JSON")
	}); err != nil {
		return err
	}
	list, err := readTimeline(path)
	if errors.Is(err, fs.ErrNotExist) && path == defaultTimeline {
		return errors.New("nothing was waited for since this machine booted: " + path + " is not there")
	}
	if err != nil {
		return fmt.Errorf("reading the timeline: %w", err)
	}
	var notes timelineNotes
	if path == defaultTimeline {
		early := earlyStages()
		notes, list = timelineNotes{memory(), firmwareNote(early)}, append(early, list...)
	}
	if asJSON {
		return json.MarshalWrite(os.Stdout, struct {
			timelineNotes
			Timeline []stage `json:"timeline"`
		}{notes, list})
	}
	return printTimeline(os.Stdout, notes, list)
}

// timelineNotes are about this machine; what is empty is not said.
type timelineNotes struct {
	Memory   string `json:"memory,omitempty"`
	Firmware string `json:"firmware,omitempty"`
}

func printTimeline(w io.Writer, notes timelineNotes, list []stage) error {
	var b strings.Builder
	if notes.Memory != "" {
		fmt.Fprintf(&b, "memory    %s\n", notes.Memory)
	}
	if notes.Firmware != "" {
		fmt.Fprintf(&b, "firmware  %s\n", notes.Firmware)
	}
	fmt.Fprintf(&b, "%12s  %12s  stage\n", "start ms", "took ms")
	for _, s := range list {
		end := ""
		if s.Failed {
			end = "  FAILED"
		}
		if s.Bytes > 0 {
			end += fmt.Sprintf("  %d bytes", s.Bytes)
		}
		if s.Retries > 0 {
			end += fmt.Sprintf("  %d retries", s.Retries)
		}
		if s.ID != "" {
			end += "  reference " + strings.Trim(fmt.Sprintf("%+q", s.ID), `"`)
		}
		fmt.Fprintf(&b, "%12.1f  %12.1f  %s%s\n", float64(s.At)/1000, float64(s.Took)/1000, strings.Trim(fmt.Sprintf("%+q", s.Name), `"`), end)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
