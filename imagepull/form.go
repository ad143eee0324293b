// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/imagepull/unpack"
)

// Form is how a store keeps layers. Both forms give the same trees and take the
// same checks.
type Form int

const (
	// FormAuto is FormErofs where the kernel mounts what that makes in the
	// store's directory, whole, with attributes and ACLs; else FormDirectories.
	FormAuto Form = iota
	// FormDirectories unpacks a layer into a directory.
	FormDirectories
	// FormErofs keeps a layer's archive as one file, with an EROFS filesystem in
	// it, and mounts that. New fails where FormAuto would choose otherwise.
	FormErofs
)

// String is the form's name in the log.
func (f Form) String() string {
	return [...]string{"auto", "directories", "erofs"}[f]
}

// keeper keeps one layer in a directory of its own, its home.
type keeper interface {
	// unpack reads a layer's archive to its end and keeps it in home, an empty
	// directory that will get another name.
	unpack(ctx context.Context, home string, id layerID, archive io.Reader) (unpack.Stats, error)
	// open makes the layer's tree visible and returns its path.
	open(home string) (tree string, err error)
	// close undoes open, also one of an earlier process. The tree stays for
	// whatever has it mounted.
	close(home string) error
}

// newKeeper chooses the keeper for a store whose staging directory this is.
func newKeeper(form Form, sealer Sealer, staging string, log *slog.Logger) (keeper, error) {
	if sealer != nil {
		return newSealedImages(form, sealer, staging, log)
	}
	if form == FormDirectories {
		return directories{}, nil
	}
	k, err := probeImages(staging)
	if err != nil && form == FormErofs {
		return nil, fmt.Errorf("keeping layers as erofs images: %w", err)
	}
	if err != nil {
		log.Info("layers are kept as directories", "reason", err.Error())
		return directories{}, nil
	}
	log.Info("layers are kept as erofs images", "loop", k.loop)
	return k, nil
}

// directories is the keeper whose homes are the trees.
type directories struct{}

func (directories) unpack(ctx context.Context, home string, _ layerID, archive io.Reader) (unpack.Stats, error) {
	return unpack.Layer(ctx, home, archive, unpack.Limits{})
}

func (directories) open(home string) (string, error) { return home, nil }

func (directories) close(string) error { return nil }

// images is the keeper whose homes hold an image and the directory on which it
// is mounted.
type images struct {
	loop bool // the kernel does not mount the file itself
}

const (
	imageFile = "image"
	imageTree = "tree"
)

func (k images) unpack(ctx context.Context, home string, id layerID, archive io.Reader) (unpack.Stats, error) {
	f, err := os.OpenFile(filepath.Join(home, imageFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return unpack.Stats{}, err
	}
	stats, err := unpack.Image(ctx, f, archive, id.uuid(), unpack.Limits{})
	if err := errors.Join(err, f.Close()); err != nil {
		return stats, err
	}
	return stats, os.Mkdir(filepath.Join(home, imageTree), 0o700)
}

// uuid is the beginning of the DiffID: layers that are mounted together differ in
// it, which overlayfs wants.
func (id layerID) uuid() (uuid [16]byte) {
	raw, _ := hex.DecodeString(id.diffID.Hex) // parseDigest has checked it
	copy(uuid[:], raw)
	return uuid
}

func (k images) open(home string) (string, error) {
	tree := filepath.Join(home, imageTree)
	mount := mountImageFile
	if k.loop {
		mount = mountImageLoop
	}
	if err := mount(filepath.Join(home, imageFile), tree); err != nil {
		return "", fmt.Errorf("mounting layer %s: %w", filepath.Base(home), err)
	}
	return tree, nil
}

func (k images) close(home string) error {
	tree := filepath.Join(home, imageTree)
	for {
		err := unix.Unmount(tree, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		switch {
		case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR): // nothing is mounted
			return nil
		case err != nil:
			return fmt.Errorf("unmounting layer %s: %w", filepath.Base(home), err)
		}
	}
}
