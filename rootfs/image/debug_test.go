// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casemate/casemate/rootfs/cpio"
)

// goProgram builds a static program with some tags, as a guest's is.
func goProgram(t *testing.T, tags string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module x\n", "main.go": "package main\n\nfunc main() {}\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := filepath.Join(dir, "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-tags", tags, "-o", out)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return out
}

// TestDebugGuest: its form is the released one's plus a shell and a mark, and neither
// program fits into the other's image.
func TestDebugGuest(t *testing.T) {
	debug, released := goProgram(t, "seccomp,debug"), goProgram(t, "seccomp")
	shell := staticProgram(t, t.TempDir())
	r, err := DefaultRecipe()
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		in   Inputs
		want string
	}{
		"debug program unmarked":     {Inputs{Program: debug}, "want --debug"},
		"released program as debug":  {Inputs{Program: released, Debug: true, Shell: shell}, "tag debug"},
		"shell of many files":        {Inputs{Program: debug, Debug: true, Shell: filepath.Join(t.TempDir(), "none")}, "as the shell"},
		"no Go program as debug":     {Inputs{Program: staticProgram(t, t.TempDir()), Debug: true, Shell: shell}, "tag debug"},
		"a shell in a released form": {Inputs{Program: released, Extra: []Entry{{Path: "/bin/sh", Kind: File, Perm: 0o755, HostPath: shell}}}, "a shell has no place"},
	} {
		if _, err := r.GuestTree(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if _, err := r.BootTree(Inputs{Program: debug}, "pin"); err == nil {
		t.Error("a debug program boots without a mark")
	}
	in := Inputs{Program: debug, Debug: true, Shell: shell}
	guest, err := r.GuestTree(in)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := r.BootTree(in, "pin")
	if err != nil {
		t.Fatal(err)
	}
	plain, err := r.GuestTree(Inputs{Program: released})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/bin/sh", "/bin/busybox", DebugMark} {
		if _, ok := guest.entries[path]; !ok {
			t.Errorf("no %s in a debug guest", path)
		}
		if _, ok := plain.entries[path]; ok {
			t.Errorf("%s in a released guest", path)
		}
	}
	for _, c := range []Compression{Zstd, Gzip, None} {
		for tree, want := range map[*Tree]bool{guest: true, boot: true, plain: false} {
			var b bytes.Buffer
			if err := WriteInitramfs(&b, tree, c); err != nil {
				t.Fatal(err)
			}
			if Debug(b.Bytes()) != want {
				t.Errorf("%s: marked %v, want %v", c, !want, want)
			}
			if want && strings.Count(b.String(), DebugMark[1:]) != 1 {
				t.Errorf("%s: the mark is there %d times", c, strings.Count(b.String(), DebugMark[1:]))
			}
		}
	}
	checkDebugListing(t, guest)
}

// checkDebugListing has GNU cpio read the front archive, and what is behind it.
func checkDebugListing(t *testing.T, guest *Tree) {
	t.Helper()
	program, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio to compare with")
	}
	var b bytes.Buffer
	if err := WriteInitramfs(&b, guest, None); err != nil {
		t.Fatal(err)
	}
	end := bytes.Index(b.Bytes(), []byte("TRAILER!!!")) + len("TRAILER!!!\x00")
	end += (4 - end%4) % 4
	for want, archive := range map[string][]byte{"etc/casemate/debug\n": b.Bytes()[:end], "bin/sh\n": b.Bytes()[end:]} {
		cmd := exec.Command(program, "-t", "--quiet")
		cmd.Stdin = bytes.NewReader(archive)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("no %q: %v: %s", want, err, out)
		}
	}
}

// FuzzDebug: hostile bytes are no mark, and none makes the reader fail.
func FuzzDebug(f *testing.F) {
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	if err := w.File(DebugMark, 0o644, 2, strings.NewReader("x\n")); err != nil {
		f.Fatal(err)
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte(newcMagic + strings.Repeat("F", newcHeader)))
	f.Add(binary.LittleEndian.AppendUint32(nil, 0x184D2204))
	f.Fuzz(func(t *testing.T, text []byte) {
		if Debug(text) && !bytes.Contains(text, []byte(DebugMark[1:])) {
			t.Error("a mark that is not there")
		}
	})
}
