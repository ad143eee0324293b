// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/erofs/go-erofs"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/rootfs/ext4"
	"github.com/casemate/casemate/verity"
)

// BlockSize is that of the file system and of both sides of its hash tree, in bytes.
const BlockSize = 4096

// epoch is the time of every file and of the file system: no build has a date.
func epoch() time.Time { return time.Unix(0, 0) }

// FileSystem is that of a root, by the kernel's name.
type FileSystem string

// The file systems of a root. Ext4 is for runtimes whose kernel has no erofs.
const (
	Erofs FileSystem = "erofs"
	Ext4  FileSystem = "ext4"
)

// WriteRoot writes the tree to f, which must be empty, and returns the file system's size
// in bytes, a multiple of BlockSize. Owner is root throughout. The kernel mounts it
// without options.
func WriteRoot(f *os.File, form FileSystem, t *Tree) (size int64, err error) {
	switch form {
	case Erofs:
		size, err = writeErofs(f, t)
	case Ext4:
		size, err = writeExt4(f, t)
	default:
		return 0, fmt.Errorf("writing the root: file system %q, want %s or %s", form, Erofs, Ext4)
	}
	if err != nil {
		return 0, fmt.Errorf("writing the root: %w", err)
	}
	return size, f.Truncate(size)
}

func writeExt4(f *os.File, t *Tree) (int64, error) {
	w := ext4.NewWriter(f)
	for _, e := range t.Entries() {
		if err := archiveEntry(w, e); err != nil {
			return 0, err
		}
	}
	return w.Close()
}

func writeErofs(f *os.File, t *Tree) (int64, error) {
	w := erofs.Create(f, erofs.WithBuildTime(0, 0), erofs.WithBlockSize(BlockSize))
	err := w.Chtimes("/", epoch(), epoch())
	for _, e := range t.Entries() {
		if err != nil {
			break
		}
		if err = rootEntry(w, e); err != nil {
			err = fmt.Errorf("adding %s: %w", e.Path, err)
		}
	}
	// Also after an error: Close is what gives the writer's temporary file back.
	if err = errors.Join(err, w.Close()); err != nil {
		return 0, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	return roundUp(size, BlockSize), err
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func rootEntry(w *erofs.Writer, e Entry) error {
	mode := fs.FileMode(e.Perm & 0o777)
	if e.Perm&unix.S_ISVTX != 0 {
		mode |= fs.ModeSticky
	}
	var err error
	switch e.Kind {
	case Directory:
		err = errors.Join(w.Mkdir(e.Path, mode.Perm()), w.Chmod(e.Path, mode))
	case Link:
		err = w.Symlink(e.Target, e.Path)
	case CharDevice:
		err = w.Mknod(e.Path, uint16(unix.S_IFCHR|e.Perm), uint32(unix.Mkdev(e.Major, e.Minor)))
	case File:
		err = errors.Join(rootFile(w, e), w.Chmod(e.Path, mode))
	}
	return errors.Join(err, w.Chtimes(e.Path, epoch(), epoch()))
}

func rootFile(w *erofs.Writer, e Entry) error {
	r, size, err := e.open()
	if err != nil {
		return err
	}
	f, err := w.Create(e.Path)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	n, err := io.Copy(f, r)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes, want %d", n, size)
	}
	return errors.Join(err, f.Close(), r.Close())
}

// HashRoot writes the hash tree of a root of size bytes to hash, without a
// superblock as kata's runtime expects it, and returns what pins the root. The salt
// is the SHA-256 of the root: no two roots share one, and the same root always gives
// the same tree.
func HashRoot(ctx context.Context, root io.ReaderAt, size int64, hash verity.HashDevice) (verity.Pin, error) {
	salt := sha256.New()
	if _, err := io.Copy(salt, io.NewSectionReader(root, 0, size)); err != nil {
		return verity.Pin{}, fmt.Errorf("reading the root: %w", err)
	}
	pin := verity.Pin{Params: verity.Params{
		HashType: 1, Algorithm: "sha256", Salt: salt.Sum(nil),
		DataBlockSize: BlockSize, HashBlockSize: BlockSize, DataBlocks: uint64(size / BlockSize),
	}}
	var err error
	pin.RootHash, err = verity.Build(ctx, root, hash, pin.Params)
	return pin, err
}
