// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// switches are written once all modules are in, and read back. A file that is absent means that this kernel cannot
// do what the switch forbids.
func switches() []struct{ file, value string } {
	return []struct{ file, value string }{
		{"/proc/sys/kernel/modules_disabled", "1"},
		{"/proc/sys/kernel/kexec_load_disabled", "1"},
		{"/proc/sys/fs/suid_dumpable", "0"},
		// A pattern that names no program: a core file is neither written nor piped anywhere.
		{"/proc/sys/kernel/core_pattern", "|/"},
	}
}

// lockdownFile belongs to the lockdown LSM; its content reads "none integrity [confidentiality]".
const lockdownFile = securityPath + "/lockdown"

// seal takes from the kernel, and from this process, what nobody needs any more: loading modules, booting another
// kernel, core files, and every interface by which root reads kernel memory. It reports whether the kernel has the
// lockdown LSM at all; everything that is there must take effect.
func seal() (lockdown bool, err error) {
	for _, s := range switches() {
		if err := flip(s.file, s.value); err != nil {
			return false, err
		}
	}
	if lockdown, err = lockKernel(); err != nil {
		return lockdown, err
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return lockdown, fmt.Errorf("setting the core limit: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return lockdown, fmt.Errorf("becoming non-dumpable: %w", err)
	}
	return lockdown, nil
}

func flip(file, value string) error {
	err := set(file, value)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("setting %s: %w", file, err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading %s back: %w", file, err)
	}
	if s := strings.TrimSpace(string(got)); s != value {
		return fmt.Errorf("reading %s back: got %q, want %q", file, s, value)
	}
	return nil
}

// set writes to a file of the kernel, and unlike os.WriteFile never makes one.
func set(file, value string) error {
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

func lockKernel() (present bool, err error) {
	state, err := os.ReadFile(lockdownFile)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return true, fmt.Errorf("reading the lockdown state: %w", err)
	}
	if locked(state) {
		return true, nil
	}
	if err := set(lockdownFile, "confidentiality"); err != nil {
		return true, fmt.Errorf("locking the kernel down: %w", err)
	}
	if state, err = os.ReadFile(lockdownFile); err != nil {
		return true, fmt.Errorf("reading the lockdown state: %w", err)
	}
	if !locked(state) {
		return true, errors.New("locking the kernel down: it took no effect")
	}
	return true, nil
}

func locked(state []byte) bool { return strings.Contains(string(state), "[confidentiality]") }
