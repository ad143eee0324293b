// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// makeNode makes the node that udev would make. The kernel has just accepted the name as new, so whatever has it
// in the directory is a left-over.
func makeNode(d Device) error {
	if err := removeNode(d.Path); err != nil {
		return err
	}
	if err := unix.Mknod(d.Path, unix.S_IFBLK|0o600, int(d.Dev)); err != nil {
		return fmt.Errorf("making node %s: %w", d.Path, err)
	}
	return nil
}

func removeNode(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing node: %w", err)
	}
	return nil
}
