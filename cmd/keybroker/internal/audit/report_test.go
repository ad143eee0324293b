// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestReportsMakeRoom(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	id := func(i int) string { return fmt.Sprintf("%016x", i) }
	for i := range maxReports + 10 {
		if err := l.KeepReport(id(i), true, []byte(`{}`)); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(1_000_000+i), 0)
		if err := os.Chtimes(filepath.Join(dir, reportDir, id(i)+".json"), at, at); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(filepath.Join(dir, reportDir)); err != nil || len(files) != maxReports {
		t.Errorf("%d files, %v", len(files), err)
	}
	for i, kept := range map[int]bool{0: false, 9: false, 10: true, maxReports + 9: true} {
		if _, err := ReadReport(dir, id(i)); (err == nil) != kept {
			t.Errorf("report %d: %v", i, err)
		}
	}
	for _, bad := range []string{"", "../../seal.key", "0123456789ABCDEF", "0123456789abcde", "0123456789abcdef0"} {
		if err := l.KeepReport(bad, true, []byte(`{}`)); err == nil {
			t.Errorf("kept under %q", bad)
		}
		if _, err := ReadReport(dir, bad); err == nil {
			t.Errorf("read %q", bad)
		}
	}
}
