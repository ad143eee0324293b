// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
)

// mapper stands in for the kernel: mappings are files, and the status of an integrity device is what it is told.
type mapper struct {
	dir     string
	status  string // of integrity devices
	kind    string // of the others
	failAt  int    // the call of Create that fails, from 1
	creates int
	busyAt  int // the call of Remove that fails, from 1
	removes int
	live    []string // names, from below
	log     []string
	tables  []devmapper.Target
	uuids   []string
	keys    [][]byte // the very slices that were handed over
}

var errNoMapping = errors.New("the kernel says no")

func newMapper(t *testing.T) *mapper {
	return &mapper{dir: t.TempDir(), status: "0 2048 -", kind: "crypt"}
}

func (m *mapper) Create(c devmapper.Mapping) (devmapper.Device, error) {
	if m.creates++; m.creates == m.failAt {
		return devmapper.Device{}, errNoMapping
	}
	m.log = append(m.log, "create "+c.Name)
	m.live = append(m.live, c.Name)
	m.uuids = append(m.uuids, c.UUID)
	sectors := uint64(0)
	switch t := c.Targets[0].(type) {
	case devmapper.Crypt:
		m.keys = append(m.keys, t.Key)
		t.Key = bytes.Clone(t.Key)
		m.tables, sectors = append(m.tables, t), t.LengthSectors
	case devmapper.Integrity:
		m.tables, sectors = append(m.tables, t), t.LengthSectors
	}
	path := filepath.Join(m.dir, c.Name)
	err := os.WriteFile(path, nil, 0o600)
	return devmapper.Device{Name: c.Name, Path: path}, errors.Join(err, os.Truncate(path, int64(sectors)*devmapper.SectorSize))
}

func (m *mapper) Remove(name string) error {
	if m.removes++; m.removes == m.busyAt {
		return unix.EBUSY
	}
	if len(m.live) == 0 || m.live[len(m.live)-1] != name {
		return unix.EBUSY
	}
	m.log = append(m.log, "remove "+name)
	m.live = m.live[:len(m.live)-1]
	return nil
}

func (m *mapper) Status(name string) ([]devmapper.TargetStatus, error) {
	if !slices.Contains(m.live, name) {
		return nil, unix.ENXIO
	}
	if strings.HasSuffix(name, tagsSuffix) {
		return []devmapper.TargetStatus{{Kind: "integrity", Info: m.status}}, nil
	}
	return []devmapper.TargetStatus{{Kind: m.kind}}, nil
}

// checkClean: nothing stays mapped and no key stays in memory.
func (m *mapper) checkClean(t *testing.T) {
	t.Helper()
	if len(m.live) > 0 {
		t.Errorf("still mapped: %q", m.live)
	}
	m.checkKeys(t)
}

func (m *mapper) checkKeys(t *testing.T) {
	t.Helper()
	for _, key := range m.keys {
		if len(bytes.Trim(key, "\x00")) > 0 {
			t.Error("a key was not cleared")
		}
	}
}

// openDisk makes a disk of n bytes and opens it as the package opens a block device.
func openDisk(t *testing.T, path string, n int64) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil && n > 0 {
		err = f.Truncate(n)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}
