// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	loopControl = "/dev/loop-control"
	// loopAttempts is how often a free loop device may turn out taken: others
	// look for one at the same time.
	loopAttempts = 1024
	// loopSector is the block size of images (erofs.BlockBytes): the device must
	// take reads of that size.
	loopSector = 512
)

// AttachLoop makes a file a read-only loop device (loop(4)) with sectors of 512
// bytes. The device frees itself when the last that has it open, a mount, a mapping
// or the file returned, which the caller closes, lets go. It takes devtmpfs on /dev:
// the kernel makes the device's node.
func AttachLoop(file string) (*os.File, error) {
	backing, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("attaching a loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile(loopControl, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attaching a loop device: %w", err)
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd()), Size: loopSector}
	config.Info.Flags = unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR
	copy(config.Info.File_name[:len(config.Info.File_name)-1], file)
	for range loopAttempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("finding a free loop device: %w", err)
		}
		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("opening a loop device: %w", err)
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attaching %s to loop device %d: %w", file, n, err)
		}
	}
	return nil, fmt.Errorf("attaching a loop device: %d were taken meanwhile", loopAttempts)
}
