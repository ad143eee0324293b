// SPDX-License-Identifier: Apache-2.0

package unpack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"
)

// mountImage mounts an image where no name leads, so that nothing can be left over, and returns a path to it.
func mountImage(t testing.TB, file string) string {
	t.Helper()
	fs, err := unix.Fsopen("erofs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Skipf("needs erofs in the kernel: %v", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", file); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fs); errors.Is(err, unix.ENOTBLK) {
		t.Skipf("needs a kernel that mounts files: %v", err)
	} else if err != nil {
		log := make([]byte, 512)
		n, _ := unix.Read(fs, log)
		t.Fatalf("mounting image: %v %q", err, log[:max(n, 0)])
	}
	mnt, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(mnt) })
	return fmt.Sprintf("/proc/self/fd/%d/.", mnt)
}

// imageOf makes an image of an archive in a file of its own.
func imageOf(t testing.TB, data []byte, lim Limits) (string, Stats, error) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stats, err := Image(context.Background(), f, bytes.NewReader(data), [16]byte{1, 2, 3}, lim)
	return f.Name(), stats, err
}

// causes are the errors that the archive is to blame for.
var causes = []error{ErrFormat, ErrTruncated, ErrTrailing, ErrEscape, ErrLimit}

// sameImage makes an image of the archive that Layer unpacked into dir, with the given result, and reports every
// difference: of verdict, statistics and, mounted, of the trees.
func sameImage(t testing.TB, data []byte, lim Limits, dir string, want Stats, wantErr error) {
	t.Helper()
	file, got, err := imageOf(t, data, lim)
	var errno unix.Errno
	if errors.As(wantErr, &errno) {
		return // what the test's filesystem cannot hold
	}
	if (err == nil) != (wantErr == nil) {
		t.Fatalf("image: got error %v, the directory has %v", err, wantErr)
	}
	for _, cause := range causes {
		if errors.Is(err, cause) != errors.Is(wantErr, cause) {
			t.Errorf("image: got error %v, the directory has %v", err, wantErr)
		}
	}
	if err != nil {
		return
	}
	got.SkippedXattrs, want.SkippedXattrs = nil, nil // the filesystem's affair
	if !reflect.DeepEqual(got, want) {
		t.Errorf("image: got %+v, the directory has %+v", got, want)
	}
	checkImage(t, file)
	if raw, err := os.ReadFile(file); err != nil || !filler(raw[4096:4096+len(data)], data) {
		t.Errorf("the archive is not kept in the image: %v", err)
	}
	compare(t, timeless(snapshot(t, mountImage(t, file), nil)), timeless(snapshot(t, dir, nil)))
}

// filler reports whether two archives differ at most in what is zero in one.
func filler(got, want []byte) bool {
	for i := range got {
		if got[i] != want[i] && got[i] != 0 {
			return false
		}
	}
	return true
}

var whiteoutTime = regexp.MustCompile(`^(002\d{4} \S+) \S+( dev=0:0)`)

// timeless takes away the times of whiteouts, which nobody sees.
func timeless(tree map[string]string) map[string]string {
	for path, what := range tree {
		tree[path] = whiteoutTime.ReplaceAllString(what, "$1$2")
	}
	return tree
}

// fsckErofs is where .ci/fsck-erofs puts its program.
const fsckErofs = "../../build/cache/fsck-erofs/fsck.erofs"

// checkImage runs fsck.erofs over an image where make setup has built it; TestFsck insists on that.
func checkImage(t testing.TB, file string) {
	t.Helper()
	if _, err := os.Stat(fsckErofs); err != nil {
		return
	}
	if err := fsck(file); err != nil {
		t.Error(err)
	}
}

// fsck checks an image's metadata and reads all content.
func fsck(file string) error {
	out, err := exec.Command(fsckErofs, "--extract", file).CombinedOutput()
	if err != nil || bytes.Contains(out, []byte("<E>")) {
		return fmt.Errorf("fsck.erofs: %w: %s", errors.Join(err, errors.New("not clean")), out)
	}
	return nil
}

// archived returns the bytes that a test's reader stands for, nil when it is more than bytes.
func archived(r io.Reader) []byte {
	switch r := r.(type) {
	case interface{ Bytes() []byte }:
		return bytes.Clone(r.Bytes())
	case *bytes.Reader:
		b := make([]byte, r.Len())
		_, _ = r.ReadAt(b, 0)
		return b
	case *os.File:
		b, err := os.ReadFile(r.Name())
		if err == nil {
			return b
		}
	}
	return nil
}
