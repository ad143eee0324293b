// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

func open(t *testing.T, dir string) (*Log, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	l, err := Open(dir, slog.New(slog.NewTextHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, &out
}

func readAll(t *testing.T, dir string) (records []Record, skipped int) {
	t.Helper()
	skipped, err := Read(dir, func(r Record) error { records = append(records, r); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return records, skipped
}

func TestRecordsReadBack(t *testing.T) {
	dir := t.TempDir()
	l, out := open(t, dir)
	r := Record{ID: "1f", Event: Attest, Workload: "web"}
	r.Guest(verifier.Facts{TEE: "snp", Measurement: "ab", InitData: "sha256:cd", TestRoot: true, Devices: "tpm", AttestationKey: "sha256:ef"})
	r.Deny([]verifier.Finding{{Rule: "vmpl", Wanted: "0", Found: "1"}, {Rule: "debug"}})
	if err := l.Write(r); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(Record{Event: Release, Allowed: true, Resource: "a/b/c"}); err != nil {
		t.Fatal(err)
	}
	records, skipped := readAll(t, dir)
	if len(records) != 2 || skipped != 0 {
		t.Fatalf("got %d records, %d skipped", len(records), skipped)
	}
	got := records[0]
	if got.Rule != "vmpl" || got.Wanted != "0" || got.Found != "1" || fmt.Sprint(got.Also) != "[debug]" || !got.TestRoot || got.Devices != "tpm" || got.AttestationKey != "sha256:ef" || got.Time.IsZero() {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{"verdict=deny", "rule=vmpl", "also=debug", "verdict=allow", "resource=a/b/c", "test_root=true"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "audit.log"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("audit.log: %v, %v", info.Mode(), err)
	}
}

// A peer cannot forge a line, move a terminal or make a line without end.
func TestHostileText(t *testing.T) {
	dir := t.TempDir()
	l, out := open(t, dir)
	found := "x\n{\"event\":\"release\",\"allowed\":true}\n\x1b[2J\xff" + strings.Repeat("é", MaxRecordSize)
	if err := l.Write(Record{Event: Attest, Found: found}); err != nil {
		t.Fatal(err)
	}
	records, skipped := readAll(t, dir)
	if len(records) != 1 || skipped != 0 || records[0].Allowed {
		t.Fatalf("got %d records, %d skipped: %+v", len(records), skipped, records)
	}
	if len(records[0].Found) > 2*maxText {
		t.Errorf("found has %d bytes", len(records[0].Found))
	}
	if strings.ContainsRune(out.String(), '\x1b') || strings.Count(out.String(), "\n") != 1 {
		t.Errorf("output is %q", out)
	}
}

func TestLineCutByACrash(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	if err := l.Write(Record{Event: Start, Allowed: true}); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "audit.log"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"event":"rel`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	again, _ := open(t, dir)
	if err := again.Write(Record{Event: Attest}); err != nil {
		t.Fatal(err)
	}
	records, skipped := readAll(t, dir)
	if len(records) != 2 || skipped != 1 || records[1].Event != Attest {
		t.Fatalf("got %+v, %d skipped", records, skipped)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l, _ := open(t, dir)
	l.max = 4 << 10
	const writers, each = 8, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if err := l.Write(Record{Event: Auth, ID: fmt.Sprintf("%d-%d", w, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	records, skipped := readAll(t, dir)
	if skipped != 0 || len(records) == 0 {
		t.Fatalf("%d records, %d skipped", len(records), skipped)
	}
	last := map[string]int{}
	for _, r := range records {
		var w, i int
		if _, err := fmt.Sscanf(r.ID, "%d-%d", &w, &i); err != nil {
			t.Fatal(err)
		}
		if prev, ok := last[fmt.Sprint(w)]; ok && i != prev+1 {
			t.Fatalf("writer %d: record %d follows %d", w, i, prev)
		}
		last[fmt.Sprint(w)] = i
	}
	files, err := filepath.Glob(filepath.Join(dir, "audit.log*"))
	if err != nil || len(files) != KeptFiles {
		t.Errorf("%d files are kept, want %d: %v", len(files), KeptFiles, err)
	}
}

func TestNoLog(t *testing.T) {
	if _, err := Read(t.TempDir(), func(Record) error { return nil }); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Open(filepath.Join(t.TempDir(), "absent"), slog.Default()); err == nil {
		t.Error("a log was opened in a directory that does not exist")
	}
}
