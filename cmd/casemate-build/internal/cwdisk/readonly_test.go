// SPDX-License-Identifier: Apache-2.0

package cwdisk

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/krun"
)

// variety makes a directory with files of each kind that needs no root.
func variety(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	in := func(name string) string { return filepath.Join(root, name) }
	when := time.Unix(1_600_000_000, 0)
	for _, err := range []error{
		os.Mkdir(root, 0o700), os.Mkdir(in("bin"), 0o755), os.Mkdir(in("lost+found"), 0o700), os.Mkdir(in("tmp"), 0o755), os.Chmod(in("tmp"), 0o777|os.ModeSticky),
		os.WriteFile(in("bin/sh"), bytes.Repeat([]byte("sh"), 5000), 0o755), os.Link(in("bin/sh"), in("bin/zz")), os.Symlink("sh", in("bin/ash")),
		os.WriteFile(in("empty"), nil, 0o600), unix.Mkfifo(in("pipe"), 0o640), os.WriteFile(in(ConfigName), []byte(`{"config":{}}`), 0o600),
		os.Chtimes(in("bin/sh"), when, when), os.Chtimes(in("bin"), when, when), os.Chtimes(in("tmp"), when, when), os.Chtimes(in("empty"), when, when),
		os.Chtimes(in("pipe"), when, when), os.Chtimes(in(ConfigName), when, when), os.Chtimes(in("lost+found"), when, when),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	link := []unix.Timespec{{Sec: when.Unix()}, {Sec: when.Unix()}}
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, in("bin/ash"), link, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		t.Fatal(err)
	}
	return root
}

func verityOptions(root string) Options {
	return Options{Root: root, Verity: true, Passphrase: []byte("0123"), Trailer: krun.Trailer{TEE: "snp", TEEData: "{}", WorkloadID: "w", CPUs: 1, RAMMiB: 512}}
}

// TestSameFilesSamePin: a directory's pin can be found again by whoever has the same files, and needs no other program.
func TestSameFilesSamePin(t *testing.T) {
	t.Setenv("PATH", "")
	pin := func(root string) string {
		made, err := Write(t.Context(), filepath.Join(t.TempDir(), "disk"), verityOptions(root))
		if err != nil {
			t.Fatal(err)
		}
		return made.Pin.Text()
	}
	root := variety(t)
	first := pin(root)
	if second := pin(variety(t)); second != first {
		t.Errorf("the same files elsewhere: %s, want %s", second, first)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(root, link); err != nil {
		t.Fatal(err)
	}
	if linked := pin(link); linked != first {
		t.Errorf("by a link: %s, want %s", linked, first)
	}
	if err := os.Chmod(filepath.Join(root, "empty"), 0o640); err != nil {
		t.Fatal(err)
	}
	if changed := pin(root); changed == first {
		t.Error("another mode, the same pin")
	}
}

// TestAttributesThatWouldBeLost are an error: the container would run with less than its files say.
func TestAttributesThatWouldBeLost(t *testing.T) {
	root := variety(t)
	if err := unix.Setxattr(filepath.Join(root, "bin/sh"), "user.casemate", []byte("x"), 0); errors.Is(err, unix.ENOTSUP) {
		t.Skip("no extended attributes of users on this file system")
	} else if err != nil {
		t.Fatal(err)
	}
	_, err := Write(t.Context(), filepath.Join(t.TempDir(), "disk"), verityOptions(root))
	if err == nil || !strings.Contains(err.Error(), "user.casemate") {
		t.Errorf("got %v", err)
	}
}
