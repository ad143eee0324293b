// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// BundleOptions is how a container is to differ from what its image says. The
// zero value runs the image as it is, in the guest's network namespace.
type BundleOptions struct {
	// Args, when not nil, replace the image's Cmd and follow its Entrypoint.
	Args []string
	// Entrypoint, when not nil, replaces the image's Entrypoint and drops its Cmd.
	Entrypoint []string
	// Env holds NAME=VALUE entries; they win over the image's.
	Env []string
	// WorkingDir and User replace the image's when not empty. User is
	// [USER|UID][:GROUP|GID], looked up in the image.
	WorkingDir, User string
	// Hostname of the container; "" keeps the guest's.
	Hostname string
	// PrivateNetwork gives the container a network namespace of its own, with
	// nothing but loopback in it.
	PrivateNetwork bool
	// Readonly makes the root filesystem read-only for the container.
	Readonly bool
	// Terminal asks the runtime for a pseudo terminal.
	Terminal bool
	// Upper and Work are where the container's writes go: two directories, made
	// when absent, on one filesystem. "" means upper and work below the bundle.
	Upper, Work string
}

// Bundle is an OCI runtime bundle on disk: config.json and the mounted rootfs.
type Bundle struct {
	Dir    string      // absolute
	Rootfs string      // Dir/rootfs, mounted
	Spec   *specs.Spec // what config.json holds; Root.Path is Rootfs
}

// NewBundle mounts the image below dir, which is absent or empty, and writes
// config.json there. On an error nothing is left mounted and dir is removed.
func NewBundle(img *Image, dir string, opts BundleOptions) (*Bundle, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("making bundle %s: %w", dir, err)
	}
	if err := emptyDir(dir); err != nil {
		return nil, fmt.Errorf("making bundle %s: %w", dir, err)
	}
	b := &Bundle{Dir: dir, Rootfs: filepath.Join(dir, "rootfs")}
	if err := b.fill(img, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("making bundle %s: %w", dir, err), os.RemoveAll(dir))
	}
	return b, nil
}

func (b *Bundle) fill(img *Image, opts BundleOptions) error {
	if opts.Upper == "" && opts.Work == "" {
		opts.Upper, opts.Work = filepath.Join(b.Dir, "upper"), filepath.Join(b.Dir, "work")
	}
	for _, dir := range []string{b.Rootfs, opts.Upper, opts.Work} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the bundle is 0700; upper is the container's root
			return err
		}
	}
	if err := img.Mount(b.Rootfs, opts.Upper, opts.Work); err != nil {
		return err
	}
	if err := b.configure(img, opts); err != nil {
		return errors.Join(err, Unmount(b.Rootfs))
	}
	return nil
}

func (b *Bundle) configure(img *Image, opts BundleOptions) error {
	spec, err := newSpec(img.Config, b.Rootfs, opts)
	if err != nil {
		return err
	}
	raw, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding config.json: %w", err)
	}
	b.Spec = spec
	return os.WriteFile(filepath.Join(b.Dir, "config.json"), raw, 0o600)
}

// Close unmounts the root filesystem and removes the bundle, with the container's
// writes when they are in it.
func (b *Bundle) Close() error {
	// EINVAL: nothing is mounted any more. With any other error removing the
	// directory would remove the container's files through the mount.
	if err := Unmount(b.Rootfs); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(b.Dir)
}

func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("it holds %q: %w", entries[0].Name(), os.ErrExist)
	}
	return nil
}
