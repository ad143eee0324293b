// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
)

// SecureMounts carries requests out and undoes them. Its methods may be called at the same time; requests are served
// one after another.
type SecureMounts struct {
	Volumes  Volumes
	Measured []VolumeConfig // the volumes that a request may name
	// Scratch allows requests for new scratch, which destroy what their device holds.
	Scratch bool
	Cipher  devmapper.Cipher // of scratch: a constant of the image
	Below   []string         // absolute directories that exist, in which mount points may lie
	// MakeExt4 returns the maker of a new file system, or refuses the arguments of mkfs.ext4 that it is asked for with.
	// Nil refuses requests for one.
	MakeExt4 func(mkfsOpts string) (Formatter, error)

	mu   sync.Mutex
	open []*Mounted
}

// maxSecureMounts bounds what requests can keep open.
const maxSecureMounts = 64

var (
	errNoMaker = errors.New("there is no maker of file systems")
	errMapping = errors.New("the device is a mapping: scratch takes the place of disks alone")
	// ErrNoScratch is wrapped when a request for scratch comes where measured configuration does not serve them.
	ErrNoScratch = errors.New("new scratch is not served")
)

// Mount serves a request. An existing volume is opened, never formatted; a device for scratch is formatted, and its
// earlier content is lost. The mount point's directory is made if need be; as a link it must not exist. A request that
// comes a second time while the first is mounted is done already: kata's agent sends the one for its image store with
// every container. On error all of it is undone.
func (s *SecureMounts) Mount(ctx context.Context, m SecureMount) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgetGone()
	for _, o := range s.open {
		if o.Point == m.MountPoint && o.request == m && m.FileSystem && !o.gone() {
			return nil
		}
		if o.Point == m.MountPoint {
			return fmt.Errorf("secure mount on %s: it is in use", m.MountPoint)
		}
	}
	if len(s.open) >= maxSecureMounts {
		return fmt.Errorf("secure mount on %s: there are %d already", m.MountPoint, len(s.open))
	}
	o := &Mounted{Point: m.MountPoint, request: m}
	if err := s.mount(ctx, m, o); err != nil {
		err = errors.Join(fmt.Errorf("secure mount on %s: %w", m.MountPoint, err), o.Close())
		if len(o.closers) == 0 {
			return err
		}
		s.open = append(s.open, o) // what is in use is undone another time
		return err
	}
	s.open = append(s.open, o)
	return nil
}

func (s *SecureMounts) mount(ctx context.Context, m SecureMount, o *Mounted) error {
	if !slices.ContainsFunc(s.Below, func(dir string) bool { return strings.HasPrefix(m.MountPoint, dir+"/") }) {
		return ErrOutside
	}
	device, err := m.device("/sys", "/dev")
	if err != nil {
		return err
	}
	if m.Encrypted {
		err = s.openVolume(ctx, m, device, o)
	} else {
		err = s.openScratch(ctx, m, device, o)
	}
	if err != nil {
		return err
	}
	return o.place(s.Below, m.FileSystem)
}

// forgetGone closes what its user has unmounted without a word, as kata's agent does with an emptyDir. What a container
// still has stays for another time. What is not counted is closed: whoever opens it next counts it first.
func (s *SecureMounts) forgetGone() {
	s.open = slices.DeleteFunc(s.open, func(o *Mounted) bool {
		if !o.gone() {
			return false
		}
		err := o.Close()
		return err == nil || errors.Is(err, ErrNotCounted)
	})
}

func (s *SecureMounts) openVolume(ctx context.Context, m SecureMount, device string, o *Mounted) error {
	c, err := m.VolumeOf(s.Measured)
	if err != nil {
		return err
	}
	c.Mapping = m.Name
	v, err := s.Volumes.Open(ctx, c, device)
	if err != nil {
		return err
	}
	o.Device, o.Size, o.closers = v.Path, v.Size, append(o.closers, v.Close)
	return nil
}

func (s *SecureMounts) openScratch(ctx context.Context, m SecureMount, device string, o *Mounted) error {
	if !s.Scratch {
		return ErrNoScratch
	}
	f, err := s.maker(m)
	if err != nil {
		return err
	}
	if err := isDisk("/sys", device); err != nil {
		return err
	}
	name := m.Name
	if name == "" {
		var id [8]byte
		rand.Read(id[:]) // never fails
		name = "scratch-" + hex.EncodeToString(id[:])
	}
	v, err := OpenScratch(ctx, s.Volumes.Mapper, ScratchConfig{Name: name, Device: device, Cipher: s.Cipher})
	if err != nil {
		return err
	}
	o.Device, o.Size, o.closers = v.Path, v.Size, append(o.closers, v.Close)
	return v.Format(ctx, f)
}

// isDisk refuses mappings: one that is open and not mounted is somebody's data all the same.
func isDisk(sys, device string) error {
	var st unix.Stat_t
	if err := unix.Stat(device, &st); err != nil {
		return fmt.Errorf("looking at %s: %w", device, err)
	}
	id := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if _, err := os.Stat(filepath.Join(sys, "dev/block", id, "dm")); err == nil {
		return errMapping
	}
	return nil
}

// maker is asked before the device is touched.
func (s *SecureMounts) maker(m SecureMount) (Formatter, error) {
	switch {
	case !m.FileSystem:
		return Zeros{}, nil // a device is read anywhere
	case s.MakeExt4 == nil:
		return nil, errNoMaker
	}
	f, err := s.MakeExt4(m.MkfsOpts)
	if err != nil {
		return nil, &OptionError{"mkfsOpts", err.Error()}
	}
	return f, nil
}

// Close undoes what was mounted on a path. In use, it stays, with an error that wraps unix.EBUSY; with ErrNotCounted it is
// undone.
func (s *SecureMounts) Close(mountPoint string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, o := range s.open {
		if o.Point == mountPoint {
			err := o.Close()
			if err == nil || errors.Is(err, ErrNotCounted) {
				s.open = append(s.open[:i], s.open[i+1:]...)
			}
			if err != nil {
				return fmt.Errorf("closing the secure mount on %s: %w", mountPoint, err)
			}
			return nil
		}
	}
	return fmt.Errorf("closing the secure mount on %s: there is none", mountPoint)
}

// CloseAll undoes everything, the last first, as far as it goes.
func (s *SecureMounts) CloseAll() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []error
	var stay []*Mounted
	for i := len(s.open) - 1; i >= 0; i-- {
		err := s.open[i].Close()
		if err == nil {
			continue
		}
		all = append(all, fmt.Errorf("closing the secure mount on %s: %w", s.open[i].Point, err))
		if !errors.Is(err, ErrNotCounted) {
			stay = append([]*Mounted{s.open[i]}, stay...)
		}
	}
	s.open = stay
	return errors.Join(all...)
}

// maxUevent caps what the kernel says about a device, in bytes: a page of sysfs.
const maxUevent = 4096

// device finds the node of the request's device. A number is looked up in sysfs, and the node must have it.
func (m SecureMount) device(sys, dev string) (string, error) {
	if m.DevicePath != "" {
		return m.DevicePath, nil
	}
	f, err := os.Open(filepath.Join(sys, "dev/block", m.DeviceID, "uevent"))
	if err != nil {
		return "", fmt.Errorf("looking for device %s: %w", m.DeviceID, err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxUevent))
	if err != nil {
		return "", fmt.Errorf("looking for device %s: %w", m.DeviceID, err)
	}
	for line := range strings.Lines(string(text)) {
		name, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "DEVNAME=")
		if !ok {
			continue
		}
		node := filepath.Join(dev, name)
		if !absolute("/" + name) {
			return "", fmt.Errorf("looking for device %s: name %q", m.DeviceID, name)
		}
		var st unix.Stat_t
		if err := unix.Stat(node, &st); err != nil {
			return "", fmt.Errorf("looking for device %s: %s: %w", m.DeviceID, node, err)
		}
		if id := strconv.Itoa(int(unix.Major(st.Rdev))) + ":" + strconv.Itoa(int(unix.Minor(st.Rdev))); id != m.DeviceID {
			return "", fmt.Errorf("looking for device %s: %s is %s", m.DeviceID, node, id)
		}
		return node, nil
	}
	return "", fmt.Errorf("looking for device %s: the kernel names no node", m.DeviceID)
}
