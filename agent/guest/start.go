// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// First says whether this process is the first of the machine and so has the duties of this package. A container's
// first process is one of its pid namespace as well: dispatch those before asking.
func First() bool { return os.Getpid() == 1 }

// CleanStart replaces the first process by itself, once, with no arguments and no environment: both come from the
// kernel command line, so from the host, and libraries and the Go runtime obey many a variable. It returns nil at
// once in the second start and in any process that is not the first. Call it before anything reads either.
func CleanStart() error {
	if !First() || len(os.Args) <= 1 && len(os.Environ()) == 0 {
		return nil
	}
	const self = procPath + "/self/exe"
	if _, err := os.Readlink(self); err != nil {
		if err := procMount().mount(); err != nil {
			return err
		}
	}
	if err := unix.Exec(self, []string{"casemate"}, nil); err != nil {
		return fmt.Errorf("starting over: %w", err)
	}
	return nil
}

// PowerOff writes out what is buffered and switches the machine off. It returns only to say that it could not.
func PowerOff() error { return restart(unix.LINUX_REBOOT_CMD_POWER_OFF) }

// Reboot is [PowerOff], but the machine starts again.
func Reboot() error { return restart(unix.LINUX_REBOOT_CMD_RESTART) }

func restart(command int) error {
	unix.Sync()
	if err := unix.Reboot(command); err != nil {
		return fmt.Errorf("leaving the machine: %w", err)
	}
	return nil
}
