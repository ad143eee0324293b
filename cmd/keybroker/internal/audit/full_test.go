// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is full takes a piece of a record. The next record that Write takes, when there is room again, must not
// end up in the same line, where nobody reads it: what it stands for was released.
func TestPieceOfARecordDoesNotHideTheNext(t *testing.T) {
	if os.Getenv("AUDIT_LIMITED") == "" {
		// The limit is the whole process's.
		cmd := exec.Command(os.Args[0], "-test.run=^TestPieceOfARecordDoesNotHideTheNext$")
		cmd.Env = append(os.Environ(), "AUDIT_LIMITED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	l, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := l.Write(Record{Event: Release, ID: "before"}); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	limit(t, uint64(l.size)+20)
	if err := l.Write(Record{Event: Release, ID: "lost"}); err == nil {
		t.Fatal("a record that does not fit was taken")
	}
	limit(t, unix.RLIM_INFINITY)
	if err := l.Write(Record{Event: Release, ID: "after"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	if _, err := Read(dir, func(r Record) error { got = append(got, r.ID); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[1] != "after" {
		t.Errorf("records %q, want before and after", got)
	}
}

func limit(t *testing.T, size uint64) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: size, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
}

// A rotation that fails, as it does while the process has no descriptor left, fails that record alone.
func TestFailedRotationIsTriedAgain(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.max = 1
	if err := l.Write(Record{Event: Release, ID: "first"}); err != nil {
		t.Fatal(err)
	}
	// A file does not take a directory's place.
	old := l.name(KeptFiles - 1)
	if err := errors.Join(os.Mkdir(old, 0o700), os.WriteFile(l.name(KeptFiles-2), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(Record{Event: Release, ID: "lost"}); err == nil {
		t.Fatal("a record without a place was taken")
	}
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(Record{Event: Release, ID: "second"}); err != nil {
		t.Errorf("after the place was free again: %v", err)
	}
}
