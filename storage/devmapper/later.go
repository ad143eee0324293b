// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// RemoveLater takes a device's node away and has the kernel remove the device itself when the last that has it open,
// a mount above all, lets go of it. Nobody can open it any more by its name.
func (c *Control) RemoveLater(name string) error {
	if err := checkName("name", name, nameMax); err != nil {
		return fmt.Errorf("removing mapping: %w", err)
	}
	if err := c.ioctl(unix.DM_DEV_REMOVE, request(name, "", unix.DM_DEFERRED_REMOVE)); err != nil {
		return fmt.Errorf("removing mapping %s when it is free: %w", name, err)
	}
	if err := removeNode(filepath.Join(c.dir, name)); err != nil {
		return fmt.Errorf("removing mapping %s: %w", name, err)
	}
	return nil
}
