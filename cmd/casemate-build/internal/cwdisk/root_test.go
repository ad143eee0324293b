// SPDX-License-Identifier: Apache-2.0

//go:build root

package cwdisk

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRootReadOnlyCopy: the kernel finds in the file system what was in the directory.
func TestRootReadOnlyCopy(t *testing.T) {
	root := variety(t)
	in := func(name string) string { return filepath.Join(root, name) }
	capability := append([]byte{1, 0, 0, 2, 0, 0x20, 0, 0}, make([]byte, 12)...) // cap_net_raw+ep, version 2
	for _, err := range []error{
		os.Lchown(in("bin/ash"), 70_000, 80_000), os.Chown(in("pipe"), 1, 2), unix.Mknod(in("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(259, 70_000))),
		unix.Mknod(in("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))), os.WriteFile(in("ping"), []byte("ping"), 0o755),
		unix.Setxattr(in("ping"), capabilityXattr, capability, 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	image, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	if _, err := makeReadOnly(t.Context(), verityOptions(root), image); err != nil {
		t.Fatal(err)
	}
	point := t.TempDir()
	if out, err := exec.Command("mount", "-t", "ext4", "-o", "loop,ro", image.Name(), point).CombinedOutput(); err != nil {
		t.Fatalf("mounting: %v: %s", err, out)
	}
	defer func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	}()
	files := 0
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		files++
		rel, _ := filepath.Rel(root, path)
		if rel == "." {
			return nil
		}
		compare(t, path, filepath.Join(point, rel))
		return nil
	})
	if err != nil || files != 13 {
		t.Errorf("%d files, %v", files, err)
	}
	if info, err := os.Stat(point); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the root directory: %v, %v", info.Mode(), err)
	}
	got := make([]byte, 64)
	if n, err := unix.Getxattr(filepath.Join(point, "ping"), capabilityXattr, got); err != nil || !bytes.Equal(got[:n], capability) {
		t.Errorf("capability %x, %v", got[:max(n, 0)], err)
	}
}

func compare(t *testing.T, from, to string) {
	t.Helper()
	var a, b unix.Stat_t
	if err := unix.Lstat(from, &a); err != nil {
		t.Fatal(err)
	}
	if err := unix.Lstat(to, &b); err != nil {
		t.Error(err)
		return
	}
	type facts struct {
		mode, uid, gid   uint32
		links, rdev      uint64
		size, modified   int64
		target, contents string
	}
	of := func(path string, st *unix.Stat_t) facts {
		f := facts{mode: st.Mode, uid: st.Uid, gid: st.Gid, links: uint64(st.Nlink), rdev: st.Rdev, modified: st.Mtim.Sec} //nolint:unconvert // by architecture
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			f.links = 0 // some file systems count no directories
		case unix.S_IFREG:
			text, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
			}
			f.size, f.contents = st.Size, string(text)
		case unix.S_IFLNK:
			f.target, _ = os.Readlink(path)
		}
		return f
	}
	if want, got := of(from, &a), of(to, &b); want != got {
		t.Errorf("%s: got %.200v, want %.200v", to, got, want)
	}
}
