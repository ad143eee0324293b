// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull"
)

// kernelLogOf hands out a record with each read, as /dev/kmsg does.
func kernelLogOf(records ...string) func([]byte) (int, error) {
	return func(b []byte) (int, error) {
		if len(records) == 0 {
			return 0, unix.EAGAIN
		}
		r := records[0]
		records = records[1:]
		if r == "overwritten" {
			return 0, unix.EPIPE
		}
		return copy(b, r), nil
	}
}

func TestKernelStages(t *testing.T) {
	const (
		first  = "5,0,0,-;Linux version 6.12.0 (a@b)\n"
		memory = "6,88,31000,-;Memory: 2012344K/2096628K available\n SUBSYSTEM=x\n"
		initrd = "6,301,812000,-;Freeing initrd memory: 8192K\n"
		runs   = "6,412,1100500,-;Run /init as init process\n"
	)
	whole := []stage{
		{Name: "kernel: until its memory was set up", Took: 31000}, {Name: "kernel: until the initrd was unpacked", At: 31000, Took: 781000},
		{Name: "kernel: until the first process", At: 812000, Took: 288500},
	}
	for name, tt := range map[string]struct {
		records []string
		want    []stage
	}{
		"a boot":                 {[]string{first, memory, initrd, runs, "6,500,2000000,-;Memory: again\n"}, whole},
		"overwritten in between": {[]string{first, memory, "overwritten", initrd, runs}, whole},
		"no initrd":              {[]string{first, memory, runs}, []stage{whole[0], {Name: whole[2].Name, At: 31000, Took: 1069500}}},
		"the beginning is gone":  {[]string{runs}, []stage{{Name: whole[2].Name, Took: 1100500}}},
		"a program's own words":  {[]string{first, "12,90,5,-;Memory: 1K\n", "14,91,6,-;Run /init as init process\n", memory, initrd, runs}, whole},
		"time that runs back":    {[]string{first, memory, "6,301,30000,-;Freeing initrd memory: 8192K\n", runs}, []stage{whole[0], {Name: whole[2].Name, At: 31000, Took: 1069500}}},
		"other processes":        {[]string{first, memory, initrd, "6,400,900000,-;Run /init as something else\n", runs}, whole},
		"no records at all": {[]string{
			"", ";", "6,1;Memory: \n", "x,1,2,-;Memory: \n", "6,1,x,-;Memory: \n", "6,1,-5,-;Memory: \n", "6,1,99999999999999999999,-;Memory: \n", "6,1,2,-Memory: ", "99999999999,1,2,-;Memory: \n",
		}, nil},
		"nothing": {nil, nil},
	} {
		if got := readKernelStages(kernelLogOf(tt.records...)); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
	}
	calls := 0
	readKernelStages(func(b []byte) (int, error) { calls++; return copy(b, "6,1,2,-;more\n"), nil })
	if calls > maxKernelRecords {
		t.Errorf("a log without end was read %d times", calls)
	}
	if got := kernelStages(filepath.Join(t.TempDir(), "none")); got != nil {
		t.Errorf("got %+v of no log", got)
	}
}

func FuzzKernelRecord(f *testing.F) {
	f.Add([]byte("6,88,31000,-;Memory: 2012344K/2096628K available\n SUBSYSTEM=x\n"))
	f.Fuzz(func(t *testing.T, record []byte) {
		if at, text, ok := kernelRecord(record); ok && (at < 0 || strings.Contains(text, "\n") || !bytes.Contains(record, []byte(text))) {
			t.Errorf("got %d, %q", at, text)
		}
	})
}

func TestFirmwareStages(t *testing.T) {
	for name, tt := range map[string]struct {
		launched, left string
		want           []stage
	}{
		"a boot": {"1500000000\n", "2100000000\n", []stage{
			{Name: "firmware: until it started the boot program", At: -2_100_000, Took: 1_500_000}, {Name: "boot program: until it left the firmware", At: -600_000, Took: 600_000},
		}},
		"no table":           {"", "", nil},
		"never launched":     {"0", "2100000000", nil},
		"runs back":          {"2100000000", "1500000000", nil},
		"longer than can be": {"1", "9223372036854775807", nil},
		"no number":          {"1e9", "2e9", nil},
		"too long":           {strings.Repeat("1", 65), "2100000000", nil},
	} {
		dir := t.TempDir()
		for file, text := range map[string]string{"bootloader_launch_ns": tt.launched, "exitbootservice_end_ns": tt.left} {
			if text == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := firmwareStages(dir)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, tt.want)
		}
		if note := firmwareNote(got); (note == "") != (tt.want != nil) {
			t.Errorf("%s: note %q", name, note)
		}
	}
}

// What a pull brought stands beside its time, whether it came to its end or not, and pulls
// at the same time are told apart.
func TestPullsAreMeasured(t *testing.T) {
	m := &machine{steps: steps{io.Discard, timeline{filepath.Join(t.TempDir(), "timeline.jsonl")}}}
	told := 0
	watch := m.pulls.watch(func(imagepull.Progress) { told++ })
	watch(imagepull.Progress{Reference: "a", Fetched: 10})
	watch(imagepull.Progress{Reference: "b", Fetched: 7})
	watch(imagepull.Progress{Reference: "a", Fetched: 123, Retries: 2})
	m.pulls.watch(nil)(imagepull.Progress{Reference: "c"})
	p, err := imagepull.New(imagepull.Config{Store: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := m.pullImage(t.Context(), m.steps.quietly(), p, "a"); err == nil {
		t.Fatal("pulled without a policy")
	}
	list, err := readTimeline(m.steps.line.path)
	if err != nil || len(list) != 1 || list[0].Bytes != 123 || list[0].Retries != 2 || !list[0].Failed {
		t.Errorf("got %+v, %v", list, err)
	}
	if told != 3 || m.pulls.take("a") != (imagepull.Progress{}) || m.pulls.take("b").Fetched != 7 {
		t.Errorf("told %d times, left %+v", told, m.pulls.last)
	}
	var out strings.Builder
	if err := printTimeline(&out, timelineNotes{Firmware: "silent"}, list); err != nil || !strings.Contains(out.String(), "FAILED  123 bytes  2 retries\n") || !strings.Contains(out.String(), "firmware  silent\n") {
		t.Errorf("%v: %s", err, out.String())
	}
}
