// SPDX-License-Identifier: Apache-2.0

//go:build root

package chain

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

func TestChain(t *testing.T) {
	w := newWorld(t)
	a := w.initdata(t, "initdata-a.toml", "a", w.policy)
	b := w.initdata(t, "initdata-b.toml", "b", w.policy)
	w.register(t, "a", a.Digest)
	w.register(t, "b", b.Digest)
	w.secret(t, "a", "app/config/x", "secret of a")
	w.secret(t, "b", "app/config/only-b", "secret of b")
	imageA := w.image(t, "a")

	t.Run("the image runs for its own workload", func(t *testing.T) {
		out, log, err := w.guest(t, a, "run", imageA, "--", "echo hello; exit 0")
		if err != nil || out != "hello\n" {
			t.Fatalf("got %q, %v: %s", out, err, log)
		}
	})
	t.Run("the container's status is the program's", func(t *testing.T) {
		_, log, err := w.guest(t, a, "run", imageA, "--", "exit 7")
		if code := exitCode(err); code != 7 {
			t.Fatalf("got status %d, want 7: %s", code, log)
		}
	})
	t.Run("a secret of its own", func(t *testing.T) {
		if out, log, err := w.guest(t, a, "get", "kbs:///app/config/x"); err != nil || out != "secret of a" {
			t.Fatalf("got %q, %v: %s", out, err, log)
		}
	})

	// An edited copy of a's initdata that names a and admits any image.
	loose := w.initdata(t, "initdata-loose.toml", "a", `{"default":[{"type":"insecureAcceptAnything"}]}`+"\n")
	forged := loose
	forged.HostData = a.HostData
	for _, tt := range []struct {
		name    string
		d       fixture.InitData
		args    []string
		wantErr string
	}{
		{"a secret of another workload", a, []string{"get", "kbs:///app/config/only-b"}, "not found"},
		{"an image of another workload", b, []string{"run", imageA, "--", "echo ran"}, "layer key unavailable"},
		{"host-written initdata that names a, launched with its own digest", loose, []string{"get", "kbs:///app/config/x"}, "denied [initdata"},
		{"host-written initdata under a's digest", forged, []string{"get", "kbs:///app/config/x"}, "initdata"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, log, err := w.guest(t, tt.d, tt.args...)
			if err == nil || out != "" {
				t.Fatalf("got %q, want nothing", out)
			}
			if !strings.Contains(log, tt.wantErr) {
				t.Fatalf("got %q, want a reason with %q", log, tt.wantErr)
			}
			if left, _ := os.ReadDir(w.path("store")); len(left) > 0 {
				t.Fatalf("the store holds %v", left)
			}
		})
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // os/exec returns it bare
		return exit.ExitCode()
	}
	return -1
}
