// SPDX-License-Identifier: Apache-2.0

//go:build root

package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// serveFUSE mounts a file system on dir that answers two requests, as a host's virtiofs answers what it likes.
func serveFUSE(t *testing.T, dir string) {
	t.Helper()
	const statfs, initialise, forget = 17, 26, 2 // opcodes, linux/fuse.h
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("host", dir, "fuse", unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)); err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		<-served
	})
	go func() {
		defer close(served)
		defer unix.Close(fd)
		e, request := binary.NativeEndian, make([]byte, 256<<10)
		for {
			if _, err := unix.Read(fd, request); errors.Is(err, unix.EINTR) {
				continue
			} else if err != nil { // unmounted
				return
			}
			body, failure := []byte(nil), unix.Errno(0)
			switch e.Uint32(request[4:]) {
			case forget:
				continue
			case statfs:
				body = make([]byte, 80)
			case initialise:
				body = make([]byte, 64)
				e.PutUint32(body, 7) // major and minor version
				e.PutUint32(body[4:], 31)
				e.PutUint32(body[20:], 4096) // longest write
			default:
				failure = unix.ENOSYS
			}
			reply := make([]byte, 16, 16+len(body))
			e.PutUint32(reply, uint32(16+len(body)))
			e.PutUint32(reply[4:], uint32(-int32(failure)))
			copy(reply[8:16], request[8:16])
			_, _ = unix.Write(fd, append(reply, body...))
		}
	}()
}

// TestRootHostServedMountPoint attacks a volume by the place where it is mounted: on a file system that the host serves,
// the host takes the mount off again by saying that its directory is no more, and what follows is written to the host.
func TestRootHostServedMountPoint(t *testing.T) {
	dir := t.TempDir()
	serveFUSE(t, dir)
	for _, fileSystem := range []bool{true, false} {
		for _, point := range []string{dir + "/m", dir + "/a/m"} {
			o := &Mounted{Point: point, Device: "/dev/null"}
			if err := o.place([]string{dir}, fileSystem); !errors.Is(err, errHostServed) {
				t.Errorf("%s: got %v", point, err)
			}
		}
	}
	below, name := filepath.Split(dir)
	o := &Mounted{Point: dir, Device: "/dev/null"}
	if err := o.place([]string{filepath.Clean(below)}, true); !errors.Is(err, errHostServed) {
		t.Errorf("%s itself: got %v", name, err)
	}
	inside := t.TempDir()
	if f, err := openBeneath([]string{inside}, inside+"/a/m", enter); err != nil {
		t.Error(err)
	} else if err := f.Close(); err != nil {
		t.Error(err)
	}
}
