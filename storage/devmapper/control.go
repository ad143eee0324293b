// SPDX-License-Identifier: Apache-2.0

package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const directory = "/dev/mapper"

// SectorSize is the unit of every length and offset that is named so: 512 bytes, whatever the device's own is.
const SectorSize = 512

// Control is the device mapper's control device. Its methods may be called at the same time.
type Control struct {
	ioctl func(req uintptr, b []byte) error
	dir   string // where the nodes are
	close func() error
}

// Open opens the control device. Without dm_mod in the kernel the error wraps [fs.ErrNotExist]. The caller closes.
func Open() (*Control, error) {
	f, err := os.OpenFile(filepath.Join(directory, unix.DM_CONTROL_NODE), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the device mapper: %w", err)
	}
	return &Control{
		ioctl: func(req uintptr, b []byte) error { return doIoctl(f.Fd(), req, b) },
		dir:   directory,
		close: f.Close,
	}, nil
}

// Close closes the control device; mappings stay.
func (c *Control) Close() error { return c.close() }

// Target is one segment of a table: [Crypt], [Integrity], [Verity] or [Linear], and nothing else can be one.
type Target interface {
	kind() string
	sectors() uint64
	params(*line)
}

// Mapping is a device to be made.
type Mapping struct {
	Name     string // in /dev/mapper: at most 127 of [A-Za-z0-9._+-], not starting with . or -
	UUID     string // empty or at most 128 of the same
	ReadOnly bool   // required for a table with a Verity target
	Targets  []Target
}

// Device is a mapping that exists.
type Device struct {
	Name string
	Path string // /dev/mapper/NAME, a node with mode 0600
	Dev  uint64 // device number as in stat(2)
}

// TargetStatus is what a target says about itself.
type TargetStatus struct {
	Kind          string
	StartSector   uint64
	LengthSectors uint64
	Info          string // the target's own text, never its parameters: those may hold a key
}

// TargetVersion is a target type that the running kernel offers.
type TargetVersion struct {
	Kind    string
	Version [3]uint32
}

// Create makes a device, loads its table, starts it and makes its node. On error none of that is left. The keys in
// the targets remain the caller's to clear.
func (c *Control) Create(m Mapping) (Device, error) {
	if err := m.check(); err != nil {
		return Device{}, fmt.Errorf("creating mapping %q: %w", m.Name, err)
	}
	b := request(m.Name, m.UUID, 0)
	if err := c.ioctl(unix.DM_DEV_CREATE, b); err != nil {
		return Device{}, fmt.Errorf("creating mapping %s: %w", m.Name, err)
	}
	d := Device{Name: m.Name, Path: filepath.Join(c.dir, m.Name), Dev: binary.NativeEndian.Uint64(b[offDev:])}
	if err := c.start(m, d); err != nil {
		return Device{}, errors.Join(fmt.Errorf("creating mapping %s: %w", m.Name, err), c.Remove(m.Name))
	}
	return d, nil
}

func (m Mapping) check() error {
	if err := checkName("name", m.Name, nameMax); err != nil {
		return err
	}
	if m.Name == unix.DM_CONTROL_NODE {
		return errors.New("the name is that of the control node")
	}
	if m.UUID != "" {
		if err := checkName("UUID", m.UUID, uuidMax); err != nil {
			return err
		}
	}
	if len(m.Targets) == 0 {
		return errors.New("no targets")
	}
	for _, t := range m.Targets {
		if _, ok := t.(Verity); ok && !m.ReadOnly {
			return errors.New("a verity mapping must be read-only")
		}
	}
	return nil
}

func (c *Control) start(m Mapping, d Device) error {
	if err := c.load(m); err != nil {
		return fmt.Errorf("loading the table: %w", err)
	}
	// Suspend without its flag means resume: the loaded table goes live.
	if err := c.ioctl(unix.DM_DEV_SUSPEND, request(m.Name, "", 0)); err != nil {
		return fmt.Errorf("resuming: %w", err)
	}
	return makeNode(d)
}

func (c *Control) load(m Mapping) error {
	flags := uint32(secureData)
	if m.ReadOnly {
		flags |= unix.DM_READONLY_FLAG
	}
	b := request(m.Name, "", flags)
	defer clear(b)
	if err := putTable(b, m.Targets); err != nil {
		return err
	}
	return withSignatures(m.Targets, func() error { return c.ioctl(unix.DM_TABLE_LOAD, b) })
}

// Remove removes a device and its node. The error wraps [unix.EBUSY] while something holds the device open, and
// [unix.ENXIO] when there is none of that name.
func (c *Control) Remove(name string) error {
	if err := checkName("name", name, nameMax); err != nil {
		return fmt.Errorf("removing mapping: %w", err)
	}
	if err := c.ioctl(unix.DM_DEV_REMOVE, request(name, "", 0)); err != nil {
		return fmt.Errorf("removing mapping %s: %w", name, err)
	}
	if err := removeNode(filepath.Join(c.dir, name)); err != nil {
		return fmt.Errorf("removing mapping %s: %w", name, err)
	}
	return nil
}

// Status asks the targets of a device for their state.
func (c *Control) Status(name string) ([]TargetStatus, error) {
	if err := checkName("name", name, nameMax); err != nil {
		return nil, fmt.Errorf("reading status: %w", err)
	}
	b := request(name, "", 0)
	if err := c.ioctl(unix.DM_TABLE_STATUS, b); err != nil {
		return nil, fmt.Errorf("reading status of mapping %s: %w", name, err)
	}
	list, err := parseStatus(b)
	if err != nil {
		return nil, fmt.Errorf("reading status of mapping %s: %w", name, err)
	}
	return list, nil
}

// Versions lists the target types of the running kernel.
func (c *Control) Versions() ([]TargetVersion, error) {
	b := request("", "", 0)
	if err := c.ioctl(unix.DM_LIST_VERSIONS, b); err != nil {
		return nil, fmt.Errorf("listing target versions: %w", err)
	}
	list, err := parseVersions(b)
	if err != nil {
		return nil, fmt.Errorf("listing target versions: %w", err)
	}
	return list, nil
}
