// SPDX-License-Identifier: Apache-2.0

package hotplug

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const vfioDriver = "vfio-pci"

// Bind takes functions, DDDD:BB:SS.F as [Watcher.Wait] returns them, from the guest's drivers and returns the node of
// the one group that they are in, which a program drives them by (kernel's Documentation/driver-api/vfio.rst). A function
// without a group, which nothing would keep from the guest's memory, is refused, and so are functions of two, and a
// group with another function that was taken before: the node drives that one too. The error then has a method Stranger,
// which names it.
func (w *Watcher) Bind(ctx context.Context, functions []string) (specs.LinuxDevice, error) {
	group := ""
	for _, f := range functions {
		if _, err := ParseFunction(f); err != nil {
			return specs.LinuxDevice{}, err
		}
		if err := w.override(f); err != nil {
			return specs.LinuxDevice{}, fmt.Errorf("giving PCI function %s to %s: %w", f, vfioDriver, err)
		}
		link, err := os.Readlink(filepath.Join(w.sys, "bus/pci/devices", f, "iommu_group"))
		if err != nil {
			return specs.LinuxDevice{}, fmt.Errorf("PCI function %s is in no group: %w", f, err)
		}
		own := filepath.Base(link)
		if decimal(own, 1<<30) < 0 || group != "" && own != group {
			return specs.LinuxDevice{}, fmt.Errorf("PCI function %s is in group %q and others in %q: want one", f, own, group)
		}
		group = own
	}
	if group == "" {
		return specs.LinuxDevice{}, fmt.Errorf("no PCI function: %w", ErrAddress)
	}
	if err := w.alone(group, functions); err != nil {
		return specs.LinuxDevice{}, err
	}
	node := filepath.Join(w.dev, "vfio", group)
	_, err := w.Until(ctx, "vfio", func() (string, error) {
		_, err := w.character(node)
		return node, err
	})
	if err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("waiting for group %s: %w", group, err)
	}
	rdev, err := w.character(node)
	return specs.LinuxDevice{Path: "/dev/vfio/" + group, Type: "c", Major: int64(unix.Major(rdev)), Minor: int64(unix.Minor(rdev))}, err
}

// strangerError is a group that has another function with the driver.
type strangerError struct{ function, group string }

func (e *strangerError) Error() string {
	return fmt.Sprintf("function %s is in group %s too and was not asked for", e.function, e.group)
}

// Stranger is the function, DDDD:BB:SS.F.
func (e *strangerError) Stranger() string { return e.function }

// alone refuses a group in which the driver has other functions than these.
func (w *Watcher) alone(group string, functions []string) error {
	members, err := os.ReadDir(filepath.Join(w.sys, "kernel/iommu_groups", group, "devices"))
	if err != nil {
		return fmt.Errorf("looking for what else is in group %s: %w", group, err)
	}
	for _, m := range members {
		if slices.Contains(functions, m.Name()) {
			continue
		}
		driver, err := os.Readlink(filepath.Join(w.sys, "bus/pci/devices", m.Name(), "driver"))
		switch {
		case err == nil && filepath.Base(driver) == vfioDriver:
			return &strangerError{m.Name(), group}
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return err
		}
	}
	return nil
}

// override binds a function to the driver and to no other, from now on.
func (w *Watcher) override(f string) error {
	dir := filepath.Join(w.sys, "bus/pci/devices", f)
	if err := tell(filepath.Join(dir, "driver_override"), vfioDriver); err != nil {
		return err
	}
	driver, err := os.Readlink(filepath.Join(dir, "driver"))
	switch {
	case err == nil && filepath.Base(driver) == vfioDriver:
		return nil
	case err == nil:
		if err := tell(filepath.Join(dir, "driver/unbind"), f); err != nil {
			return err
		}
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return tell(filepath.Join(w.sys, "bus/pci/drivers_probe"), f)
}

// characterDevice returns a character device's number.
func characterDevice(node string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(node, &st); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrAbsent, &os.PathError{Op: "lstat", Path: node, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return 0, fmt.Errorf("%s is no character device", node)
	}
	return st.Rdev, nil
}
