// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/casemate/casemate/imagepull"
)

func TestDrawProgress(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    imagepull.Progress
		want string
	}{
		{"half", imagepull.Progress{Layers: 3, Unpacked: 1, Bytes: 200e6, Fetched: 100e6, Elapsed: 2 * time.Second}, "casemate:  50%  100 of 200 MB  1 of 3 layers  50.0 MB/s"},
		{"first moment", imagepull.Progress{Layers: 1, Bytes: 1e6}, "casemate:   0%  0 of 1 MB  0 of 1 layers  0.0 MB/s"},
		{"done", imagepull.Progress{Layers: 1, Unpacked: 1, Bytes: 1e6, Fetched: 1e6}, ""},
		{"nothing to fetch", imagepull.Progress{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var b strings.Builder
			drawProgress(&b, tt.p)
			if got := strings.TrimPrefix(b.String(), "\r\x1b[K"); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// TestProgressNeedsATerminal: lines that rewrite themselves are for people.
func TestProgressNeedsATerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, w := range []io.Writer{file, io.Discard} {
		if (steps{w: w}).progress() != nil {
			t.Errorf("%T: a progress line in a file", w)
		}
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	if (steps{w: terminal}).progress() == nil {
		t.Error("no progress line on a terminal")
	}
}
