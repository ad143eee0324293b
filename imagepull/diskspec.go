// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"os"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// NewRootSpec writes the runtime spec for a root file system that is there already, mounted at rootfs, whose image config
// lies in it as file. The config is read through no link.
func NewRootSpec(rootfs, file string, opts BundleOptions) (*specs.Spec, error) {
	raw, err := readBeneath(rootfs, file, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("reading %s of the root file system: %w", file, err)
	}
	// Of an image nothing counts here but how it is run: its layers are the tree itself.
	var c struct {
		Config ocispec.ImageConfig `json:"config"`
	}
	if err := decode(raw, &c); err != nil {
		return nil, fmt.Errorf("reading %s of the root file system: %w", file, err)
	}
	return newSpec(c.Config, rootfs, opts)
}

// readBeneath reads a regular file of at most limit bytes.
func readBeneath(rootfs, file string, limit int) ([]byte, error) {
	root, err := unix.Open(rootfs, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, file, &unix.OpenHow{Flags: unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), file)
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no regular file")
	case info.Size() > int64(limit):
		return nil, fmt.Errorf("%d bytes, want at most %d", info.Size(), limit)
	}
	raw := make([]byte, info.Size())
	n, err := f.ReadAt(raw, 0)
	if n < len(raw) {
		return nil, err
	}
	return raw, nil
}
