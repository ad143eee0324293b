// SPDX-License-Identifier: Apache-2.0

//go:build root

package storage

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// mkfs is the formatter of this test, which may not import the one that guests have.
type mkfs struct{ t *testing.T }

func (m mkfs) Format(w io.WriterAt, size int64) error {
	path := filepath.Join(m.t.TempDir(), "image")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return err
	}
	if err := os.Truncate(path, size); err != nil {
		return err
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-b", "4096", "-i", "16384", "-O", "^has_journal", "-m", "0", "-E", "lazy_itable_init=1,nodiscard", path).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	image, err := os.Open(path)
	if err != nil {
		return err
	}
	defer image.Close()
	b := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(b)) {
		n, err := image.ReadAt(b[:min(int64(len(b)), size-at)], at)
		if err != nil && err != io.EOF {
			return err
		}
		if _, err := w.WriteAt(b[:n], at); err != nil {
			return err
		}
	}
	return nil
}

func free(t *testing.T, dir string) int64 {
	t.Helper()
	unix.Sync()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Bavail) * st.Bsize
}

// TestRootSized: files get what the size says and ENOSPC behind it, whoever writes; unmounting gives the room back.
func TestRootSized(t *testing.T) {
	// The place is an ext4 of its own, as scratch is.
	dir, disk := t.TempDir(), filepath.Join(t.TempDir(), "disk")
	if err := MountSized(t.TempDir(), 400<<20, mkfs{t}, dir); err != nil {
		t.Fatalf("%v (is %s on a file system with O_TMPFILE?)", err, disk)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	before := free(t, dir)
	for _, size := range []int64{1, 4096, 1<<20 + 1, 16 << 20, 50 << 20, 200 << 20} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			point := t.TempDir()
			if err := MountSized(dir, size, mkfs{t}, point); err != nil {
				t.Fatal(err)
			}
			want := (size + 4095) / 4096 * 4096
			if got := free(t, point); got != want {
				t.Errorf("%d bytes free, want %d", got, want)
			}
			f, err := os.Create(filepath.Join(point, "file"))
			if err != nil {
				t.Fatal(err)
			}
			written, err := io.Copy(f, io.LimitReader(endless{}, want+1<<20))
			if !errors.Is(err, unix.ENOSPC) || written > want || written < want-want/100-8192 {
				t.Errorf("%d bytes of %d written, then %v", written, want, err)
			}
			if err := errors.Join(f.Sync(), f.Close()); err != nil {
				t.Errorf("what was written is not kept: %v", err)
			}
			names, err := os.ReadDir(point)
			if err != nil || len(names) != 1 {
				t.Errorf("the volume holds %v, %v", names, err)
			}
			if err := unix.Unmount(point, 0); err != nil {
				t.Fatal(err)
			}
			wantFree(t, dir, before)
		})
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}

// wantFree waits for the loop device to let go.
func wantFree(t *testing.T, dir string, want int64) {
	t.Helper()
	for range 100 {
		if free(t, dir) >= want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d bytes free afterwards, %d before", free(t, dir), want)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

type broken struct{ err error }

func (b broken) Format(io.WriterAt, int64) error { return b.err }

// TestRootSizedRefused: what does not fit is said at once, and no failure leaves a file, a mount or a loop device.
func TestRootSizedRefused(t *testing.T) {
	dir := t.TempDir()
	if err := MountSized(t.TempDir(), 32<<20, mkfs{t}, dir); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, 0)
	before := free(t, dir)
	cut := errors.New("cut")
	for name, tt := range map[string]struct {
		size  int64
		f     Formatter
		point string
		want  error
	}{
		"no room":         {1 << 30, mkfs{t}, t.TempDir(), unix.ENOSPC},
		"no size":         {0, mkfs{t}, t.TempDir(), nil},
		"negative":        {-1, mkfs{t}, t.TempDir(), nil},
		"format fails":    {4096, broken{cut}, t.TempDir(), cut},
		"no file system":  {4096, broken{nil}, t.TempDir(), unix.EINVAL},
		"no mount point":  {4096, mkfs{t}, "/nowhere", unix.ENOENT},
		"point is a file": {4096, mkfs{t}, "/etc/passwd", unix.ENOTDIR},
	} {
		if err := MountSized(dir, tt.size, tt.f, tt.point); err == nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		wantFree(t, dir, before)
		if names, err := os.ReadDir(dir); err != nil || len(names) != 0 {
			t.Errorf("%s: left behind %v, %v", name, names, err)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), ".sized-") {
		t.Errorf("a hidden mount stayed: %v", err)
	}
}
