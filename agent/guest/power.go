// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// acpiFamily and acpiGroup are the generic netlink names under which the kernel announces ACPI events
	// (drivers/acpi/event.c).
	acpiFamily = "acpi_event"
	acpiGroup  = "acpi_mc_group"
	powerClass = "button/power"

	// A message is a netlink header, a generic one, and one attribute: its header, then struct acpi_genl_event, which
	// begins with the class in 20 bytes.
	netlinkHeader, genericHeader, attributeHeader = 16, 4, 4
	acpiEvent                                     = 1
	classLen                                      = 20
	maxACPIMessage                                = 4 << 10
)

// AwaitPowerButton returns nil when the machine's power button is pressed, and an error when ctx ends or there is no such
// button. Whoever runs the machine presses it.
func AwaitPowerButton(ctx context.Context) error {
	f, err := acpiEvents()
	if err != nil {
		return fmt.Errorf("listening to ACPI: %w", err)
	}
	defer f.Close()
	defer context.AfterFunc(ctx, func() { _ = f.Close() })()
	buf := make([]byte, maxACPIMessage)
	for {
		n, err := f.Read(buf)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, unix.ENOBUFS): // announcements were lost; one of them may have been it, another push helps
			continue
		case err != nil:
			return fmt.Errorf("listening to ACPI: %w", err)
		case isPowerButton(buf[:n]):
			return nil
		}
	}
}

func acpiEvents() (*os.File, error) {
	family, err := netlink.GenlFamilyGet(acpiFamily)
	if err != nil {
		return nil, fmt.Errorf("looking for %s: %w", acpiFamily, err)
	}
	group := 0
	for _, g := range family.Groups {
		if g.Name == acpiGroup {
			group = int(g.ID)
		}
	}
	if group == 0 {
		return nil, errors.New("the kernel announces no ACPI events")
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "acpi"), nil
}

// isPowerButton looks at one message, of this machine's byte order.
func isPowerButton(b []byte) bool {
	const at = netlinkHeader + genericHeader
	if len(b) < at+attributeHeader+classLen || binary.NativeEndian.Uint16(b[at+2:]) != acpiEvent {
		return false
	}
	class, _, _ := bytes.Cut(b[at+attributeHeader:at+attributeHeader+classLen], []byte{0})
	return string(class) == powerClass
}
