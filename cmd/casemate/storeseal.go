// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync/atomic"

	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/verity"
)

// storeSealer seals the store's images with dm-verity trees, whose root hashes stay in memory.
type storeSealer struct {
	count *atomic.Uint64 // of mappings that the process has made, for their names
}

// storeSealer is the sealer of one of this process' stores.
func (m *machine) storeSealer() storeSealer { return storeSealer{&m.sealed} }

// Seal begins an image.
func (s storeSealer) Seal(name string, data, tree *os.File) (imagepull.Sealed, error) {
	salt := make([]byte, 32)
	rand.Read(salt)
	sealed, err := verity.Seal(data, tree, salt)
	if err != nil {
		return nil, err
	}
	return &sealedImage{Sealed: sealed, name: fmt.Sprintf("store-%d-%d-%.24s", os.Getpid(), s.count.Add(1), name)}, nil
}

// sealedImage is one layer of the store.
type sealedImage struct {
	*verity.Sealed
	name string
	pin  verity.Pin // once finished
}

// Finish completes the tree and keeps its pin.
func (s *sealedImage) Finish(ctx context.Context) (err error) {
	s.pin, err = s.Sealed.Finish(ctx)
	return err
}

// Open maps the image. The loop devices and the mapping go with the mount.
func (s *sealedImage) Open(data, tree string) (_ string, _ func() error, err error) {
	control, err := devmapper.Open()
	if err != nil {
		return "", nil, err
	}
	var loops []*os.File
	closeAll := func() error {
		errs := []error{control.Close()}
		for _, l := range loops {
			errs = append(errs, l.Close())
		}
		return errors.Join(errs...)
	}
	for _, file := range []string{data, tree} {
		l, err := imagepull.AttachLoop(file)
		if err != nil {
			return "", nil, errors.Join(err, closeAll())
		}
		loops = append(loops, l)
	}
	target := verityTarget(s.pin, loops[0].Name(), loops[1].Name())
	device, err := control.Create(devmapper.Mapping{Name: s.name, ReadOnly: true, Targets: []devmapper.Target{target}})
	if err != nil {
		return "", nil, errors.Join(err, closeAll())
	}
	return device.Path, func() error { return errors.Join(control.RemoveLater(s.name), closeAll()) }, nil
}
