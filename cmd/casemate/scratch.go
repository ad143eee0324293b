// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/hotplug"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
)

const (
	scratchName  = "casemate-scratch" // in /dev/mapper
	scratchPoint = "/run/casemate/scratch"
	scratchLock  = "/run/casemate/scratch.lock"
	// diskTime is how long a disk may take to show up: its driver may still be probing it.
	diskTime = 10 * time.Second
	// unmountTime: the kernel lets go of a container's mounts a moment after its last process has gone.
	unmountTime = 5 * time.Second
	unmountPoll = 50 * time.Millisecond
)

// place is a directory that is to lie on scratch.
type place struct {
	name, target string
	perm         fs.FileMode
}

// scratch is the guest's encrypted disk while it is open.
type scratch struct {
	mu      sync.Mutex // guards the fields below; held while it is being opened
	lock    *os.File
	control *devmapper.Control
	mounted *storage.Mounted
}

// open makes the scratch that configuration names and puts the places on it. Without one it does nothing: everything
// stays in memory. A configured scratch that cannot be had is an error, never memory in its place.
func (s *scratch) open(ctx context.Context, m *machine, places ...place) error {
	c := m.conf.Scratch
	if c == (config.Scratch{}) {
		return nil
	}
	if err := s.own(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err := m.steps.do("open scratch", func() error { return s.make(ctx, c, places) })
	if err != nil {
		return errors.Join(err, s.undo())
	}
	m.steps.say("scratch of %d MiB on %s", s.mounted.Size>>20, c.Device)
	return nil
}

// own makes this process the one that has scratch, until it ends or closes it. What is mapped and mounted by then is
// left over from one that was killed.
func (s *scratch) own() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(scratchLock), 0o700); err != nil {
		return fmt.Errorf("opening scratch: %w", err)
	}
	lock, err := os.OpenFile(scratchLock, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("opening scratch: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("opening scratch: another casemate of this guest has it (%s): %w", scratchLock, err), lock.Close())
	}
	s.lock = lock
	return nil
}

// reclaim removes what a process that was killed has left. Its containers are gone.
func (s *scratch) reclaim() error {
	if err := unmountAll(scratchPoint); err != nil {
		return err
	}
	if err := storage.CloseNamed(s.control, scratchName); !errors.Is(err, unix.ENXIO) {
		return err
	}
	return nil
}

func (s *scratch) make(ctx context.Context, c config.Scratch, places []place) error {
	device, err := waitForDisk(ctx, c.Device)
	if err != nil {
		return err
	}
	cipher := devmapper.AESXTSHMACSHA256
	if c.Integrity == "aead" {
		cipher = devmapper.AEGIS128
	}
	f, err := newExt4(scratchFS)
	if err != nil {
		return err
	}
	if s.control, err = devmapper.Open(); err != nil {
		return err
	}
	if err := s.reclaim(); err != nil {
		return fmt.Errorf("removing the scratch of an earlier process: %w", err)
	}
	s.mounted, err = storage.MountScratch(ctx, s.control, storage.ScratchConfig{Name: scratchName, Device: device, MinSize: c.MinSize, Cipher: cipher}, f, scratchPoint)
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := s.mounted.Bind(p.name, p.target, p.perm); err != nil {
			return err
		}
	}
	return nil
}

// size is that of the open scratch in bytes, 0 without one.
func (s *scratch) size() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounted == nil {
		return 0
	}
	return s.mounted.Size
}

// sized mounts a file system for so many bytes on point: on scratch, or in memory where the guest has none.
func (s *scratch) sized(size int64, point string) (err error) {
	defer func() { err = ofStage(stageScratch, point, err) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mounted == nil {
		return unix.Mount("tmpfs", point, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d", size))
	}
	f, err := newExt4(sizedFS)
	if err != nil {
		return err
	}
	return storage.MountSized(scratchPoint, size, f, point)
}

// close unmounts and unmaps; the key is gone then.
func (s *scratch) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.undo()
}

func (s *scratch) undo() error {
	if s.mounted != nil {
		if err := closeMounted(s.mounted); err != nil {
			return fmt.Errorf("closing scratch: %w", err)
		}
		s.mounted = nil
	}
	var errs []error
	if s.control != nil {
		errs = append(errs, s.control.Close())
		s.control = nil
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
		s.lock = nil
	}
	return errors.Join(errs...)
}

// closeMounted closes what the kernel may hold on to for a moment.
func closeMounted(o interface{ Close() error }) error {
	for end := time.Now().Add(unmountTime); ; time.Sleep(unmountPoll) {
		if err := o.Close(); !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// waitForDisk returns the node of a disk that configuration names.
func waitForDisk(ctx context.Context, name string) (string, error) {
	serial, ok := strings.CutPrefix(name, config.SerialPrefix)
	if !ok {
		return name, nil
	}
	return hotplug.New(diskTime).Until(ctx, "block", func() (string, error) {
		node, err := storage.FindSerial(serial)
		if errors.Is(err, storage.ErrNoDisk) {
			err = fmt.Errorf("%w: %w", hotplug.ErrAbsent, err)
		}
		return node, err
	})
}
