// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/ext4"
)

// scratchFS makes the file system that casemate makes on scratch.
type scratchFS struct{}

func (scratchFS) Format(w io.WriterAt, size int64) error {
	o, err := ext4.ParseOptions("-O ^has_journal -m 0")
	if err != nil {
		return err
	}
	o.UUID, o.Now = [16]byte{1}, time.Now()
	_, err = ext4.Format(w, size, o)
	return err
}

// fill writes until no block is free, unmounts, and lets e2fsck read all of the file system's own blocks. On a device on
// which nothing can be read that was not written, either fails if one block was left out.
func (b bench) fill(ctx context.Context) error {
	s, err := storage.OpenScratch(ctx, b.control, b.scratch(devmapper.AESXTSHMACSHA256))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // after an error nobody asks for more
	if err := s.Format(ctx, scratchFS{}); err != nil {
		return err
	}
	if err := unix.Mount(s.Path, point, "ext4", unix.MS_NOATIME, "errors=remount-ro"); err != nil {
		return err
	}
	if err := giveAll(s.Path); err != nil {
		return err
	}
	written, err := writeAll(filepath.Join(point, "all"))
	if err = errors.Join(err, readAll(filepath.Join(point, "all"), written), unix.Unmount(point, 0)); err != nil {
		return err
	}
	if err := program("/usr/sbin/e2fsck", "-f", "-n", s.Path); err != nil {
		return err
	}
	if _, err := fmt.Printf("fill %d %d\n", written>>20, s.Size>>20); err != nil {
		return err
	}
	return s.Close()
}

// giveAll takes back the blocks that the kernel keeps for itself, 2 percent, so that the very last one can be written.
func giveAll(device string) error {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return err
	}
	name, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev)))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(name), "reserved_clusters"), []byte("0"), 0o600)
}

// writeAll fills the file system, at the end block by block, and sends all of it to the disk.
func writeAll(path string) (written int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	for _, size := range []int{1 << 20, 4096} {
		block := make([]byte, size)
		for i := range block {
			block[i] = byte(i)
		}
		for {
			n, err := f.Write(block)
			written += int64(n)
			if errors.Is(err, unix.ENOSPC) {
				break
			}
			if err != nil {
				return written, errors.Join(err, f.Close())
			}
		}
	}
	var st unix.Statfs_t
	if err := errors.Join(f.Sync(), unix.Fstatfs(int(f.Fd()), &st), f.Close()); err != nil {
		return written, err
	}
	if st.Bfree != 0 {
		return written, fmt.Errorf("%d blocks are free", st.Bfree)
	}
	return written, nil
}

func readAll(path string, want int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, f)
	if err == nil && n != want {
		err = fmt.Errorf("%d bytes read, %d written", n, want)
	}
	return err
}
