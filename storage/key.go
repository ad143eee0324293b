// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// KeySource fetches what a volume's key slot opens with. The caller clears it.
type KeySource interface {
	Key(ctx context.Context, uri string) ([]byte, error)
}

// maxKey caps a key in bytes: what cryptsetup's users hand over as key files is shorter.
const maxKey = 4096

// minNewKey is the least a new volume's key may have, in bytes: such a key is taken for random, and no slow
// derivation protects it.
const minNewKey = 32

// FileKeys are the files of one directory, by URIs file://DIR/NAME.
type FileKeys struct {
	Dir string // absolute, without a slash at its end
}

// Key reads a file that is regular, belongs to this process's user and is closed to everybody else, in a directory of
// which the same holds. The bytes are the key as they are, a line's end included: 1 to 4096 of them.
func (k FileKeys) Key(_ context.Context, uri string) ([]byte, error) {
	key, err := k.read(uri)
	if err != nil {
		return nil, fmt.Errorf("reading key %s: %w", uri, err)
	}
	return key, nil
}

func (k FileKeys) read(uri string) ([]byte, error) {
	name, ok := strings.CutPrefix(uri, "file://"+k.Dir+"/")
	if !ok || name == "" || name != filepath.Base(name) || name == "." || name == ".." {
		return nil, fmt.Errorf("want file://%s/NAME", k.Dir)
	}
	dir, err := openPrivate(unix.AT_FDCWD, k.Dir, unix.O_DIRECTORY)
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	defer dir.Close()
	f, err := openPrivate(int(dir.Fd()), name, unix.O_NONBLOCK) // O_NONBLOCK: a FIFO is refused and not waited for
	if err != nil {
		return nil, err
	}
	defer f.Close()
	key := make([]byte, maxKey+1)
	n, err := io.ReadFull(f, key)
	switch {
	case err == nil:
		err = fmt.Errorf("want at most %d bytes", maxKey)
	case errors.Is(err, io.EOF):
		err = errors.New("the file is empty")
	case errors.Is(err, io.ErrUnexpectedEOF):
		return key[:n], nil
	}
	clear(key)
	return nil, err
}

// openPrivate opens a file or directory of ours that nobody else may use.
func openPrivate(dir int, path string, flag int) (*os.File, error) {
	fd, err := unix.Openat(dir, path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC|flag, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), path)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	kind := uint32(unix.S_IFREG)
	if flag&unix.O_DIRECTORY != 0 {
		kind = unix.S_IFDIR
	}
	switch {
	case st.Mode&unix.S_IFMT != kind:
		err = errors.New("it is no regular file")
	case st.Uid != uint32(os.Geteuid()):
		err = fmt.Errorf("it belongs to user %d", st.Uid)
	case st.Mode&0o077 != 0:
		err = fmt.Errorf("its mode is %#o, want no rights for group and others", st.Mode&0o777)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// key fetches a key and bounds its length.
func (v Volumes) key(ctx context.Context, uri string) ([]byte, error) {
	key, err := v.Keys.Key(ctx, uri)
	if err != nil {
		clear(key)
		return nil, fmt.Errorf("fetching the key: %w", err)
	}
	if len(key) == 0 || len(key) > maxKey {
		clear(key)
		return nil, fmt.Errorf("fetching the key: %d bytes, want 1 to %d", len(key), maxKey)
	}
	return key, nil
}
