// SPDX-License-Identifier: Apache-2.0

//go:build root

package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// attach makes a loop device with sectors of 4096 bytes.
func attach(t *testing.T, path string) string {
	t.Helper()
	dev := run(t, "losetup", "--find", "--show", "--sector-size", "4096", path)
	t.Cleanup(func() { run(t, "losetup", "--detach", dev) })
	// Where udev runs, it looks into a new device on its own.
	_ = exec.Command("udevadm", "settle").Run()
	return dev
}

// mount mounts read-write and returns the folder and what unmounts it.
func mount(t *testing.T, dev string) (string, func()) {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount(dev, dir, "ext4", syscall.MS_NOATIME, ""); err != nil {
		t.Fatalf("mounting %s: %v", dev, err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Errorf("unmounting %s: %v", dev, err)
			}
		}
	}
	t.Cleanup(unmount)
	return dir, unmount
}

// pattern is the content of a file by its number, never all one byte.
func pattern(number, size int) []byte {
	return bytes.Repeat([]byte(fmt.Sprintf("%07d\n", number)), size/8)
}

// populate makes directories that grow several blocks, long names, symbolic links, attributes outside the inode and
// files of all small sizes, and removes some again.
func populate(t *testing.T, dir string) {
	t.Helper()
	for d := range min(40, statfs(t, dir).Ffree/80) {
		sub := filepath.Join(dir, fmt.Sprint("d", d))
		if err := os.Mkdir(sub, 0o755); err != nil {
			t.Fatal(err)
		}
		for i := range 60 {
			name := filepath.Join(sub, fmt.Sprint(i, strings.Repeat("n", 200)))
			if err := os.WriteFile(name, pattern(i, i*256), 0o644); err != nil {
				t.Fatal(err)
			}
			if i%7 == 0 {
				if err := syscall.Setxattr(name, "user.test", bytes.Repeat([]byte{1}, 300), 0); err != nil {
					t.Fatal(err)
				}
			}
			if i%5 == 0 {
				if err := os.Symlink(strings.Repeat("x", 100), name[:len(name)-1]+"l"); err != nil {
					t.Fatal(err)
				}
			}
			if i%11 == 0 {
				if err := os.Remove(name); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

// fill writes files until no block is left.
func fill(t *testing.T, dir, dev string) {
	t.Helper()
	// The kernel keeps some blocks back for the growth of extents, unless told otherwise.
	if err := os.WriteFile("/sys/fs/ext4/"+filepath.Base(dev)+"/reserved_clusters", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var size int64
	// Blocks that the kernel kept for extents, or that a commit frees, are there in a later round.
	for round := range 10 {
		for block := 1 << 20; block >= 4096; {
			n, err := f.Write(pattern(int(size>>12), block))
			size += int64(n)
			if errors.Is(err, syscall.ENOSPC) {
				block /= 2
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		// The last blocks may not be enough for the large file, which needs one for its extents too.
		for i := range statfs(t, dir).Bfree {
			err := os.WriteFile(filepath.Join(dir, fmt.Sprint("last", round, "-", i)), pattern(0, 4096), 0o600)
			if err != nil && !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if statfs(t, dir).Bfree == 0 {
			return
		}
	}
	t.Errorf("%d blocks stay free", statfs(t, dir).Bfree)
}

func statfs(t *testing.T, dir string) (st syscall.Statfs_t) {
	t.Helper()
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// readAll reads every file once more.
func readAll(t *testing.T, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(io.Discard, f)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, path string) {
	t.Helper()
	run(t, "e2fsck", "-fn", path)
}

// needed turns off the kernel's speculation on a device: what it reads then, it needs. (Reading a directory, ext4 lets
// the block device read ahead behind it, where nothing may have been written. Such a read fails without a trace but in
// the kernel's log.)
func needed(t *testing.T, dev string) {
	t.Helper()
	if err := os.WriteFile("/sys/block/"+filepath.Base(dev)+"/queue/read_ahead_kb", []byte("0"), 0); err != nil {
		t.Fatal(err)
	}
}

// noneEarly fails if a block was read before anything wrote it.
func noneEarly(t *testing.T, s *strict) {
	t.Helper()
	if blocks := s.early(); len(blocks) > 0 {
		t.Errorf("blocks %v were read before anything wrote them", blocks)
	}
}

// On a device that cannot read what nothing wrote, neither the kernel nor e2fsck notices, up to the last block.
func TestRootNothingUnwrittenIsRead(t *testing.T) {
	for _, tt := range []struct {
		size    int64
		options string
		full    bool
	}{
		{16 << 20, scratchOptions, true},
		{64 << 20, "", true},
		{150 << 20, "-i 4096 -I 128", true},
		{256<<20 + 12288, scratchOptions, true},
		{10 << 30, scratchOptions, false},
		{5 << 30, "-i 65536", false},
	} {
		t.Run(fmt.Sprint(tt.size>>20, " MiB ", tt.options), func(t *testing.T) {
			s := newStrict(t, tt.size)
			if _, err := Format(s, tt.size, options(t, tt.options)); err != nil {
				t.Fatal(err)
			}
			path := s.serve(t)
			check(t, path)
			noneEarly(t, s)
			dev := attach(t, path)
			needed(t, dev)
			s.early() // what udev looked at
			dir, unmount := mount(t, dev)
			populate(t, dir)
			cutOff(t, s, dir, options(t, tt.options).Journal)
			if tt.full {
				fill(t, dir, dev)
			}
			unmount()
			dir, unmount = mount(t, dev)
			readAll(t, dir)
			unmount()
			check(t, path)
			noneEarly(t, s)
		})
	}
}

// With read-ahead as it is, nothing fails either.
func TestRootReadAheadDoesNoHarm(t *testing.T) {
	const size = 192 << 20
	s := newStrict(t, size)
	if _, err := Format(s, size, options(t, scratchOptions)); err != nil {
		t.Fatal(err)
	}
	path := s.serve(t)
	dev := attach(t, path)
	dir, unmount := mount(t, dev)
	readAll(t, dir)
	populate(t, dir)
	unmount()
	dir, unmount = mount(t, dev)
	readAll(t, dir)
	fill(t, dir, dev)
	readAll(t, dir)
	unmount()
	check(t, path)
}

// cutOff mounts a copy of a mounted device: recovery reads the journal, and leaves nothing to repair.
func cutOff(t *testing.T, s *strict, dir string, journal bool) {
	t.Helper()
	root, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := root.Sync(); err != nil {
		t.Fatal(err)
	}
	t.Run("power cut", func(t *testing.T) {
		c := s.copy(t)
		path := c.serve(t)
		dev := attach(t, path)
		needed(t, dev)
		c.early()
		dir, unmount := mount(t, dev)
		if _, err := os.ReadDir(dir); err != nil {
			t.Error(err)
		}
		unmount()
		if journal {
			check(t, path)
		}
		noneEarly(t, c)
	})
}

// The device itself must be able to fail, or the test above proves nothing.
func TestRootStrictDeviceRefuses(t *testing.T) {
	s := newStrict(t, 16<<20)
	if _, err := Format(s, 16<<20, options(t, "")); err != nil {
		t.Fatal(err)
	}
	// The inode table lies behind the superblock, the descriptors and two bitmaps.
	s.written[4] = false
	path := s.serve(t)
	if out, err := exec.Command("e2fsck", "-fn", path).CombinedOutput(); err == nil {
		t.Errorf("e2fsck is content with a block that cannot be read: %s", out)
	}
	if len(s.early()) == 0 {
		t.Error("no read was refused")
	}
	dev := attach(t, path)
	if err := syscall.Mount(dev, t.TempDir(), "ext4", 0, ""); err == nil {
		t.Error("mounted without a root inode")
	}
}

// The largest sizes mount, are written all over and are sound afterwards.
func TestRootLargest(t *testing.T) {
	for _, tt := range []struct {
		size    int64
		options string
	}{
		{100 * gib, ""},
		{tib, "-i 1048576"},
		{MaxSize, "-O ^has_journal -m 0 -i 4194304 -I 128"},
	} {
		t.Run(fmt.Sprint(tt.size>>30, " GiB"), func(t *testing.T) {
			f := newSparse(t, tt.size)
			layout, err := Format(f, tt.size, options(t, tt.options))
			if err != nil {
				t.Fatal(err)
			}
			dir, unmount := mount(t, attach(t, f.Name()))
			if st := statfs(t, dir); st.Bfree != layout.FreeBlocks || st.Files != layout.Groups*layout.InodesPerGroup {
				t.Errorf("%d blocks free and %d inodes, want %d and %d", st.Bfree, st.Files, layout.FreeBlocks, layout.Groups*layout.InodesPerGroup)
			}
			populate(t, dir)
			unmount()
			check(t, f.Name())
		})
	}
}

// A device full of old bytes.
func TestRootFilledOverOldBytes(t *testing.T) {
	const size = 512 << 20
	for _, text := range []string{"", scratchOptions} {
		t.Run(text, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "device"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			old := bytes.Repeat([]byte{0xa5}, 1<<20)
			for range size >> 20 {
				if _, err := f.Write(old); err != nil {
					t.Fatal(err)
				}
			}
			o := options(t, text)
			o.RootUID, o.RootGID, o.RootMode = 70000, 80000, 0o2770
			if _, err := Format(f, size, o); err != nil {
				t.Fatal(err)
			}
			check(t, f.Name())
			dev := attach(t, f.Name())
			dir, unmount := mount(t, dev)
			var st syscall.Stat_t
			if err := syscall.Stat(dir, &st); err != nil || st.Uid != 70000 || st.Gid != 80000 || st.Mode != syscall.S_IFDIR|0o2770 {
				t.Errorf("root directory %o of %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
			}
			if st.Mtim.Sec != o.Now.Unix() {
				t.Errorf("root directory of %d, want %d", st.Mtim.Sec, o.Now.Unix())
			}
			populate(t, dir)
			fill(t, dir, dev)
			unmount()
			check(t, f.Name())
		})
	}
}
