// SPDX-License-Identifier: Apache-2.0

package ext4

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const (
	maxLinks = 65000 // the kernel's own limit
	// The seconds since 1970 that an inode has room for.
	minTime, maxTime = -1 << 31, 1<<34 - 1<<31 - 1
)

// Attributes are what a file has besides its content.
type Attributes struct {
	Perm       uint32 // the lower 12 bits of a mode
	UID, GID   uint32
	Modified   int64  // seconds since 1970, from 1901 to 2446
	Capability []byte // of the extended attribute security.capability, at most 24 bytes; none for no attribute
}

// Set gives a file, which was added before, other attributes than root's at the time 0. The name / is the file system's
// own directory.
func (f *Writer) Set(name string, a Attributes) error {
	i := f.names[name]
	switch {
	case f.err != nil:
	case i == nil:
		f.err = fmt.Errorf("setting the attributes of %q: there is no such file", name)
	case a.Perm > 0o7777 || a.Modified < minTime || a.Modified > maxTime || len(a.Capability) > maxCapability:
		f.err = fmt.Errorf("setting the attributes of %q: mode %o, time %d and a capability of %d bytes: not all of these have room", name, a.Perm, a.Modified, len(a.Capability))
	default:
		i.mode = i.mode&unix.S_IFMT | a.Perm
		i.uid, i.gid, i.modified, i.capability = a.UID, a.GID, a.Modified, a.Capability
		f.xattrs = f.xattrs || len(a.Capability) > 0
	}
	return f.err
}

// Link adds a second name of a file that is no directory.
func (f *Writer) Link(name, old string) error {
	i := f.names[old]
	if f.err == nil && (i == nil || i.isDir() || i.links() >= maxLinks) {
		f.err = fmt.Errorf("adding %q: %q is no file that may have another name", name, old)
	}
	parent, base, err := f.place(name)
	if err != nil {
		return err
	}
	i.names++
	parent.children = append(parent.children, child{base, i})
	f.names[name] = i
	return nil
}

// BlockDevice adds a node of a block device, with a major number below 4096 and a minor one below 2^20.
func (f *Writer) BlockDevice(name string, perm, major, minor uint32) error {
	return f.device(name, unix.S_IFBLK|perm, major, minor)
}

// FIFO adds a named pipe.
func (f *Writer) FIFO(name string, perm uint32) error {
	return f.add(name, &inode{mode: unix.S_IFIFO | perm})
}

func (f *Writer) device(name string, mode, major, minor uint32) error {
	if f.err == nil && (major >= 1<<12 || minor >= 1<<20) {
		f.err = fmt.Errorf("adding %s: device %d:%d, want numbers below 4096 and 1048576", name, major, minor)
	}
	return f.add(name, &inode{mode: mode, major: major, minor: minor})
}
