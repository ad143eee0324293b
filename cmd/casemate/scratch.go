// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	s.mu.Lock()
	defer s.mu.Unlock()
	err := m.steps.do("open scratch", func() error { return s.make(ctx, c, places) })
	if err != nil {
		return errors.Join(err, s.undo())
	}
	m.steps.say("scratch of %d MiB on %s", s.mounted.Size>>20, c.Device)
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
	if s.control == nil {
		return nil
	}
	control := s.control
	s.control = nil
	return control.Close()
}

// closeMounted closes what the kernel may hold on to for a moment.
func closeMounted(o *storage.Mounted) error {
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
