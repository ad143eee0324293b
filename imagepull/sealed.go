// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/casemate/casemate/imagepull/unpack"
	"github.com/casemate/casemate/imagepull/unpack/erofs"
)

// Sealer binds images to what was written into them.
type Sealer interface {
	// Seal begins an image in data, with what binds it in tree; both are empty. name is fit for a file's and differs
	// between the images of a store.
	Seal(name string, data, tree *os.File) (Sealed, error)
}

// Sealed is one image. Until Finish it is where the image is written.
type Sealed interface {
	erofs.File
	// Finish completes the tree.
	Finish(ctx context.Context) error
	// Open makes a device that reads as what was written, or with an error, of the two files at their present places.
	// release is called once the device is mounted or is not to be; the device then goes with the mount.
	Open(data, tree string) (device string, release func() error, err error)
}

// sealedImages is images on devices of a Sealer's. What it knows of an image is in memory alone.
type sealedImages struct {
	sealer Sealer

	mu     sync.Mutex
	sealed map[string]Sealed // by their homes' final names, from unpack to open
}

const treeFile = "tree-of-hashes"

func newSealedImages(form Form, sealer Sealer, staging string, log *slog.Logger) (keeper, error) {
	if form == FormDirectories {
		return nil, errors.New("sealing layers: they are to be kept as directories")
	}
	k := &sealedImages{sealer: sealer, sealed: map[string]Sealed{}}
	if err := k.probe(staging); err != nil {
		return nil, fmt.Errorf("sealing layers: %w", err)
	}
	log.Info("layers are kept as erofs images, sealed")
	return k, nil
}

// probe does with a small image what is done with a layer.
func (k *sealedImages) probe(staging string) error {
	home, err := os.MkdirTemp(staging, "probe")
	if err != nil {
		return err
	}
	defer os.RemoveAll(home)
	err = k.seal(home, filepath.Base(home), func(s Sealed) error { return errors.Join(fillProbe(s), s.Finish(context.Background())) })
	if err != nil {
		return err
	}
	tree, err := k.open(home)
	if err != nil {
		return err
	}
	return errors.Join(checkProbe(tree), k.close(home))
}

// seal makes the two files and the mount point in home, and has fill write and finish the image.
func (k *sealedImages) seal(home, name string, fill func(Sealed) error) (err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			err = errors.Join(err, f.Close())
		}
	}()
	for _, file := range []string{imageFile, treeFile} {
		f, err := os.OpenFile(filepath.Join(home, file), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		files = append(files, f)
	}
	sealed, err := k.sealer.Seal(name, files[0], files[1])
	if err != nil {
		return err
	}
	if err := fill(sealed); err != nil {
		return err
	}
	k.mu.Lock()
	k.sealed[name] = sealed
	k.mu.Unlock()
	return os.Mkdir(filepath.Join(home, imageTree), 0o700)
}

func (k *sealedImages) unpack(ctx context.Context, home string, id layerID, archive io.Reader) (stats unpack.Stats, err error) {
	err = k.seal(home, id.dirName(), func(s Sealed) error {
		if stats, err = unpack.Image(ctx, s, archive, id.uuid(), unpack.Limits{}); err != nil {
			return err
		}
		if err := s.Finish(ctx); err != nil {
			return fmt.Errorf("sealing the image: %w", err)
		}
		return nil
	})
	return stats, err
}

func (k *sealedImages) open(home string) (string, error) {
	name := filepath.Base(home)
	k.mu.Lock()
	sealed := k.sealed[name]
	delete(k.sealed, name)
	k.mu.Unlock()
	if sealed == nil {
		return "", fmt.Errorf("mounting layer %s: it was not sealed here", name)
	}
	device, release, err := sealed.Open(filepath.Join(home, imageFile), filepath.Join(home, treeFile))
	if err != nil {
		return "", fmt.Errorf("opening layer %s: %w", name, err)
	}
	tree := filepath.Join(home, imageTree)
	if err := errors.Join(MountErofs(device, tree), release()); err != nil {
		return "", errors.Join(fmt.Errorf("mounting layer %s: %w", name, err), k.close(home))
	}
	return tree, nil
}

func (k *sealedImages) close(home string) error { return images{}.close(home) }
