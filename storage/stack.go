// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
)

// Mapper makes and removes mappings; a *devmapper.Control is one.
type Mapper interface {
	Create(devmapper.Mapping) (devmapper.Device, error)
	Remove(name string) error
	Status(name string) ([]devmapper.TargetStatus, error)
}

// tagsSuffix names the mapping that holds the tags of the one above it, as cryptsetup names it.
const tagsSuffix = "_dif"

// stack is the mappings over one device, from below.
type stack struct {
	mapper Mapper
	names  []string
}

func (s *stack) add(m devmapper.Mapping) (devmapper.Device, error) {
	d, err := s.mapper.Create(m)
	if err == nil {
		s.names = append(s.names, m.Name)
	}
	return d, err
}

// close removes the mappings from above. It stops at the first that does not go, since what is below it is in use; a
// later call goes on from there.
func (s *stack) close() error {
	for len(s.names) > 0 {
		last := len(s.names) - 1
		if err := s.mapper.Remove(s.names[last]); err != nil {
			return err
		}
		s.names = s.names[:last]
	}
	return nil
}

// What looks at every new device, as udev does, has it open for a moment.
const (
	settleTime = 2 * time.Second
	settlePoll = 10 * time.Millisecond
)

// settle is close for mappings that were just made and that nobody was given yet: who has them open lets go.
func (s *stack) settle() error {
	for end := time.Now().Add(settleTime); ; time.Sleep(settlePoll) {
		if err := s.close(); !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return err
		}
	}
}

// table is what a device is mapped with.
type table struct {
	name       string // of the mapping in /dev/mapper
	id         string // 32 hexadecimal digits for the mapping's UUID
	device     string // absolute path
	cipher     devmapper.Cipher
	key        []byte // cleared by the caller
	offset     uint64 // bytes on device
	size       uint64 // bytes from offset on that belong to the volume, tags included
	sectorSize int    // bytes that are encrypted together
	journal    bool
}

// uuid marks the mapping as cryptsetup marks its own: `cryptsetup status`, and with it what watches encrypted volumes
// from a pod, knows a mapping by this text alone. With no header on the device it prints type n/a.
func (t table) uuid() string { return "CRYPT-LUKS2-" + t.id + "-" + t.name }

func (t table) tags(sectors uint64) devmapper.Mapping {
	return devmapper.Mapping{Name: t.name + tagsSuffix, UUID: "CRYPT-INTEGRITY-" + t.name + tagsSuffix, Targets: []devmapper.Target{devmapper.Integrity{
		LengthSectors: sectors, Device: t.device, OffsetSectors: t.offset / devmapper.SectorSize,
		BlockSize: t.sectorSize, TagSize: t.cipher.TagSize(), Journal: t.journal,
	}}}
}

// formatTags lets the kernel lay out tags on a device whose superblock reads as zeros, and returns how many sectors
// of data there is room for.
func (s *stack) formatTags(t table) (uint64, error) {
	m := t.tags(uint64(t.sectorSize / devmapper.SectorSize))
	if _, err := s.add(m); err != nil {
		return 0, fmt.Errorf("formatting tags: %w", err)
	}
	status, err := s.mapper.Status(m.Name)
	if err = errors.Join(err, s.settle()); err != nil {
		return 0, fmt.Errorf("formatting tags: %w", err)
	}
	sectors, err := providedSectors(status)
	if err != nil {
		return 0, fmt.Errorf("formatting tags: %w", err)
	}
	if err := t.checkProvided(sectors); err != nil {
		return 0, fmt.Errorf("formatting tags: %w", err)
	}
	return sectors, nil
}

// providedSectors reads the second number of the integrity target's status (kernel device-mapper/dm-integrity.rst).
func providedSectors(status []devmapper.TargetStatus) (uint64, error) {
	if len(status) != 1 || status[0].Kind != "integrity" {
		return 0, fmt.Errorf("status has %d targets, want one of kind integrity", len(status))
	}
	words := strings.Fields(status[0].Info)
	if len(words) < 2 {
		return 0, fmt.Errorf("status %q, want two numbers", status[0].Info)
	}
	return strconv.ParseUint(words[1], 10, 64)
}

// checkProvided bounds the number of sectors that a superblock, or the kernel after reading one, promises.
func (t table) checkProvided(sectors uint64) error {
	room := t.size / devmapper.SectorSize
	if sectors == 0 || sectors >= room || sectors%uint64(t.sectorSize/devmapper.SectorSize) != 0 {
		return fmt.Errorf("%d sectors of data in %d, want fewer and a multiple of %d bytes", sectors, room, t.sectorSize)
	}
	return nil
}

// open maps the device: the tags if the cipher has some, of so many sectors, and the encryption above them. On error
// nothing stays mapped.
func (s *stack) open(t table, sectors uint64) (devmapper.Device, error) {
	crypt := devmapper.Crypt{
		LengthSectors: sectors, Cipher: t.cipher, Key: t.key, Device: t.device, OffsetSectors: t.offset / devmapper.SectorSize,
		SectorSize: t.sectorSize, NoWorkqueues: true,
	}
	if t.cipher.TagSize() > 0 {
		below, err := s.add(t.tags(sectors))
		if err != nil {
			return devmapper.Device{}, fmt.Errorf("mapping the tags: %w", err)
		}
		crypt.Device, crypt.OffsetSectors = below.Path, 0
	}
	d, err := s.add(devmapper.Mapping{Name: t.name, UUID: t.uuid(), Targets: []devmapper.Target{crypt}})
	if err != nil {
		return devmapper.Device{}, errors.Join(fmt.Errorf("mapping the encryption %s: %w", t.cipher, err), s.settle())
	}
	return d, nil
}
