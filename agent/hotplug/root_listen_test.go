// SPDX-License-Identifier: Apache-2.0

//go:build root

package hotplug

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRootListener hears what the kernel says, here of a subsystem that there is not, and not what a program says to
// the kernel's group.
func TestRootListener(t *testing.T) {
	l, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	text := announcement("add@/devices/casemate", "ACTION=add", "DEVPATH=/devices/casemate", "SUBSYSTEM=casemate")
	send := func(message []byte, groups uint32) {
		t.Helper()
		if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
			t.Fatal(err)
		}
	}
	send(text, 1<<(kernelGroup-1))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := l.wait(ctx, "casemate"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a program's: got %v", err)
	}
	// The kernel takes it from root, behind a netlink header, and announces it in its own name (lib/kobject_uevent.c).
	header := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(text)))
	header = binary.NativeEndian.AppendUint16(header, unix.NLMSG_MIN_TYPE)
	header = binary.NativeEndian.AppendUint16(header, unix.NLM_F_REQUEST)
	send(slices.Concat(header, make([]byte, 8), text), 0)
	start := time.Now()
	if err := l.wait(t.Context(), "casemate"); err != nil || time.Since(start) > recheck/2 {
		t.Errorf("the kernel's: got %v after %v", err, time.Since(start))
	}
}
