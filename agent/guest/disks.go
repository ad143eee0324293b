// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// maxDevices caps what is looked at; a guest has a handful of disks and partitions.
const maxDevices = 1024

// Disks lists the nodes of the disks that the host has given to the machine, sorted:
// no partitions, and nothing that the guest has made itself (loop, device-mapper, zram).
func Disks() ([]string, error) { return disks(blockDir) }

func disks(dir string) ([]string, error) {
	devices, err := blockDevices(dir)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(devices, func(node string) bool {
		_, err := os.Lstat(filepath.Join(dir, filepath.Base(node), "device")) // what it hangs on
		return err != nil
	}), nil
}

// blockDevices lists the nodes of disks and partitions that the kernel has found.
func blockDevices(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("listing disks: %w", err)
	}
	var devices []string
	for _, entry := range entries {
		size, err := os.ReadFile(filepath.Join(dir, entry.Name(), "size"))
		if err != nil || string(size) == "0\n" { // gone again, or a loop device without a file
			continue
		}
		devices = append(devices, "/dev/"+entry.Name())
	}
	if len(devices) > maxDevices {
		return nil, fmt.Errorf("listing disks: %d, want at most %d", len(devices), maxDevices)
	}
	slices.Sort(devices)
	return devices, nil
}
