// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/casemate/casemate/imagepull"
)

// runPull leaves DIR/layers and the OCI bundle DIR/bundle: config.json, and rootfs
// mounted over the layers. A pull that fails leaves neither.
func runPull(ctx context.Context, args []string) (err error) {
	o, rest, err := parseGuest(args, 2, 2, nil)
	if err != nil {
		return err
	}
	dir, err := filepath.Abs(rest[1])
	if err != nil {
		return err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("pulling into %s: want an empty directory, got %d entries", dir, len(entries))
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	store := filepath.Join(dir, "layers")
	puller, img, err := m.pull(ctx, rest[0], store)
	if err != nil {
		return errors.Join(err, os.RemoveAll(store))
	}
	bundle, err := imagepull.NewBundle(img, filepath.Join(dir, "bundle"), imagepull.BundleOptions{})
	if err != nil {
		return errors.Join(err, puller.Close(), os.RemoveAll(store))
	}
	if err := puller.Close(); err != nil {
		return err
	}
	_, err = fmt.Fprintln(os.Stdout, bundle.Dir)
	return err
}
