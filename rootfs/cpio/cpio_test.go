// SPDX-License-Identifier: Apache-2.0

package cpio

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, err := range []error{
		w.Dir("/proc", 0o555),
		w.CharDevice("/dev/console", 0o600, 5, 1),
		w.File("/init", 0o755, 5, strings.NewReader("hello")),
		w.File("/lib/modules/a.ko", 0o644, 0, strings.NewReader("")),
		w.Symlink("/sbin/init", "/init"),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// TestBytes pins the first two entries.
func TestBytes(t *testing.T) {
	got := write(t)
	dir := func(inode, name string) string {
		return "070701" + inode + "000041ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
			"00000000" + "00000000" + "00000000" + "00000000" + name
	}
	want := "070701" + "00000001" + "0000416D" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" +
		"00000000" + "00000000" + "00000000" + "00000000" + "00000005" + "00000000" + "proc\x00" + "\x00" +
		dir("00000002", "00000004"+"00000000"+"dev\x00") + "\x00\x00"
	if !strings.HasPrefix(string(got), want) {
		t.Errorf("got  %q\nwant %q", got[:len(want)], want)
	}
	if len(got)%4 != 0 || !bytes.Contains(got, []byte("TRAILER!!!\x00")) {
		t.Errorf("the archive ends with %q", got[max(0, len(got)-20):])
	}
	if again := write(t); !bytes.Equal(got, again) {
		t.Error("two writers, two archives")
	}
}

func TestGNUCpioReadsIt(t *testing.T) {
	program, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip("no cpio to compare with")
	}
	dir := t.TempDir()
	cmd := exec.Command(program, "-id", "--no-absolute-filenames", "--quiet", "lib/*", "sbin/*", "init")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(write(t))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "init")); err != nil || string(b) != "hello" {
		t.Errorf("%q, %v", b, err)
	}
	if target, err := os.Readlink(filepath.Join(dir, "sbin/init")); err != nil || target != "/init" {
		t.Errorf("%q, %v", target, err)
	}
}

func TestRefused(t *testing.T) {
	for name, add := range map[string]func(*Writer) error{
		"relative": func(w *Writer) error { return w.Dir("a", 0) },
		"dots":     func(w *Writer) error { return w.Dir("/a/../b", 0) },
		"root":     func(w *Writer) error { return w.Dir("/", 0) },
		"twice":    func(w *Writer) error { return errors.Join(w.Dir("/a", 0), w.Dir("/a", 0)) },
		"short":    func(w *Writer) error { return w.File("/a", 0, 2, strings.NewReader("1")) },
		"negative": func(w *Writer) error { return w.File("/a", 0, -1, strings.NewReader("")) },
		"huge":     func(w *Writer) error { return w.File("/a", 0, 1<<32, strings.NewReader("")) },
	} {
		w := NewWriter(&bytes.Buffer{})
		if err := add(w); err == nil {
			t.Errorf("%s was accepted", name)
		}
		if err := w.Close(); err == nil {
			t.Errorf("%s: Close forgot the error", name)
		}
	}
}
