// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// RootPin is where a measured initial RAM file system names its root: a verity pin's
// text (package verity). It is part of what is measured, as nothing on the kernel
// command line is. An initial RAM file system without it is the whole guest.
const RootPin = "/etc/casemate/root"

const (
	newRoot     = "/new"
	newInit     = "/sbin/init"
	blockDir    = "/sys/class/block"
	rootTime    = 10 * time.Second // for a disk to appear
	rootPoll    = 50 * time.Millisecond
	maxPin      = 4096    // bytes
	readAtOnce  = 1 << 20 // bytes
	rootOptions = unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOSUID
)

// ErrNoRoot is what [Root.Find] wraps while no device holds the root.
var ErrNoRoot = errors.New("no disk holds the measured root")

// Root is the root that a pin names.
type Root interface {
	// Find picks the root's devices among others, given by their paths, by what is on
	// them. An error that does not wrap ErrNoRoot is final.
	Find(devices []string) error
	// Map makes the device of which every block is checked when it is read, and
	// returns its path.
	Map() (device string, err error)
}

// EnterRoot leaves the initial RAM file system for the root that it names: it checks
// every block of it, mounts it and becomes its init, so that it does not return. It
// returns nil at once where no root is named, and otherwise a [StepError]: there is no
// other root. Call it once, in the first process, after [CleanStart] and in place of
// what [Boot] does; open makes a Root of a pin's text, done is told of every step.
func EnterRoot(open func(pin string) (Root, error), done func(Step)) error {
	if _, err := os.Lstat(RootPin); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	e := entrance{open: open}
	for _, s := range []struct {
		name string
		run  func() error
	}{
		{"root-pin", e.readPin},
		{"root-mounts", mountForRoot},
		{"root-modules", func() error { return insertModules(new(Report)) }},
		{"root-device", e.find},
		{"root-verity", e.check},
		{"root-mount", e.mount},
		{"root-switch", switchRoot},
	} {
		started := time.Now()
		if err := s.run(); err != nil {
			return &StepError{s.name, err}
		}
		done(NewStep(s.name, started))
	}
	return &StepError{"root-init", unix.Exec(newInit, []string{"casemate"}, nil)}
}

// entrance is what the steps hand on.
type entrance struct {
	open   func(pin string) (Root, error)
	root   Root
	device string
}

func (e *entrance) readPin() error {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return fmt.Errorf("looking at the root: %w", err)
	}
	if st.Type != unix.RAMFS_MAGIC && st.Type != unix.TMPFS_MAGIC {
		return errors.New("only an initial RAM file system may name another root")
	}
	f, err := os.Open(RootPin)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxPin+1))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if len(text) > maxPin {
		return fmt.Errorf("%s has over %d bytes", RootPin, maxPin)
	}
	e.root, err = e.open(string(text))
	return err
}

// mountForRoot mounts what device-mapper and the search for disks need.
func mountForRoot() error {
	if err := leaveProc(); err != nil {
		return err
	}
	_, err := mountAll(kernelMounts())
	return err
}

// find waits until the disks are there: their drivers have just been loaded.
func (e *entrance) find() error {
	for end := time.Now().Add(rootTime); ; time.Sleep(rootPoll) {
		devices, err := blockDevices(blockDir)
		if err != nil {
			return err
		}
		err = e.root.Find(devices)
		if err == nil || !errors.Is(err, ErrNoRoot) || time.Now().After(end) {
			return err
		}
	}
}

// check maps the root and reads all of it, so that a guest with a changed byte
// anywhere stops here, not when it happens to read it.
func (e *entrance) check() (err error) {
	if e.device, err = e.root.Map(); err != nil {
		return err
	}
	f, err := os.Open(e.device)
	if err != nil {
		return err
	}
	b := make([]byte, readAtOnce)
	for err == nil {
		_, err = f.Read(b)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// mount takes either file system that an image is built with: which it is was measured
// with every other byte.
func (e *entrance) mount() error {
	root := mount{source: e.device, target: newRoot, fstype: "erofs", flags: rootOptions, mode: 0o755}
	err := root.mount()
	if errors.Is(err, unix.EINVAL) {
		root.fstype = "ext4"
		err = root.mount()
	}
	return err
}

// switchRoot frees the initial RAM file system's files and puts the new root in its
// place. The new init mounts everything once more, as it would after any other boot.
func switchRoot() error {
	for _, name := range []string{"/init", "/lib", "/etc"} {
		if err := os.RemoveAll(name); err != nil {
			return fmt.Errorf("freeing the initial RAM file system: %w", err)
		}
	}
	for _, m := range kernelMounts() {
		if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting %s: %w", m.target, err)
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"entering the new root", func() error { return unix.Chdir(newRoot) }},
		{"moving the new root", func() error { return unix.Mount(".", "/", "", unix.MS_MOVE, "") }},
		{"changing the root", func() error { return unix.Chroot(".") }},
		{"entering the root", func() error { return unix.Chdir("/") }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}
