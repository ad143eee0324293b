// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/luks"
)

// VolumeConfig is what measured configuration says about a volume: all of it, since the disk is the host's.
type VolumeConfig struct {
	Name    string      // of the volume and its counter
	Mapping string      // its name in /dev/mapper, and NAME_dif; empty: Name. Anybody may have chosen it
	Key     string      // URI for the KeySource
	Header  string      // absolute path of a detached header; empty: at the start of the device
	Expect  luks.Expect // Detached follows from Header
	Replay  bool        // has a counter at Volumes.Counter; for volumes that Create made with it
}

// Volumes creates and opens volumes. Its methods may be called at the same time for different devices.
type Volumes struct {
	Mapper  Mapper
	Keys    KeySource
	Counter Counter // nil refuses volumes with VolumeConfig.Replay

	opener func(device string, flag int) (*os.File, error) // tests set it; nil is openBlockDevice
}

func (v Volumes) disk(device string, flag int) (*os.File, error) {
	if v.opener != nil {
		return v.opener(device, flag)
	}
	return openBlockDevice(device, flag)
}

// Volume is a mapped volume. Its key is in the kernel alone.
type Volume struct {
	Path   string // /dev/mapper/NAME
	Size   int64  // bytes, a multiple of the sector size
	UUID   string // as the header says; authentic only with Expect.OwnHeader
	stack  stack
	replay *replay // nil without a counter, and once it was raised behind closing
}

// ErrDataSize is wrapped when a header fixes the size of a volume with integrity: dm-integrity takes all of its device.
var ErrDataSize = errors.New("a volume with integrity has no fixed size")

// mapping is the name in /dev/mapper.
func (c VolumeConfig) mapping() string { return cmp.Or(c.Mapping, c.Name) }

// check returns the configuration with what follows from it filled in.
func (v Volumes) check(c VolumeConfig) (VolumeConfig, error) {
	switch {
	case !c.Replay:
	case v.Counter == nil:
		return c, errors.New("there is nobody to keep its counter")
	case !c.Expect.OwnHeader || c.Header != "":
		return c, errors.New("a volume with a counter has casemate's header, on its own disk")
	}
	return c.check()
}

func (c VolumeConfig) check() (VolumeConfig, error) {
	c.Expect.Detached = c.Header != ""
	switch e := c.Expect; {
	case c.Header != "" && !strings.HasPrefix(c.Header, "/"):
		return c, fmt.Errorf("header %q, want an absolute path", c.Header)
	case e.Integrity != luks.IntegrityNone && e.Size != 0:
		return c, ErrDataSize
	}
	_, err := cipherOf(c.Expect.Layout)
	return c, err
}

// cipherOf names a layout's cipher as the mapping does.
func cipherOf(l luks.Layout) (devmapper.Cipher, error) {
	switch [2]string{l.Cipher, l.Integrity} {
	case [2]string{luks.CipherAESXTS, luks.IntegrityNone}:
		return devmapper.AESXTS, nil
	case [2]string{luks.CipherAESXTS, luks.IntegrityHMACSHA256}:
		return devmapper.AESXTSHMACSHA256, nil
	case [2]string{luks.CipherAEGIS128, luks.IntegrityAEAD}:
		return devmapper.AEGIS128, nil
	}
	return 0, fmt.Errorf("cipher %q with integrity %q is not offered", l.Cipher, l.Integrity)
}

// Open unlocks a volume and maps it. It writes nothing to the disk before the first use (dm-integrity may then replay
// its journal) but, with c.Replay, a new generation, and never formats: a blank or broken device is an error. A header
// that differs from what c expects gives a joined *luks.Mismatch for each difference, a key that opens nothing
// luks.ErrWrongKey, an older image *ErrOldImage. On error nothing stays mapped. The caller closes.
func (v Volumes) Open(ctx context.Context, c VolumeConfig, device string) (*Volume, error) {
	c, err := v.check(c)
	if err != nil {
		return nil, fmt.Errorf("opening volume %s: %w", c.Name, err)
	}
	mode := os.O_RDONLY
	if c.Replay {
		mode = os.O_RDWR
	}
	disk, err := v.disk(device, mode)
	if err != nil {
		return nil, fmt.Errorf("opening volume %s: %w", c.Name, err)
	}
	o, err := v.open(ctx, c, device, disk)
	if err != nil {
		return nil, fmt.Errorf("opening volume %s on %s: %w", c.Name, device, err)
	}
	return o, nil
}

// open closes disk, since the kernel wants it for itself.
func (v Volumes) open(ctx context.Context, c VolumeConfig, device string, disk *os.File) (*Volume, error) {
	unlocked, t, sectors, err := v.unlock(ctx, c, device, disk)
	if unlocked != nil {
		defer unlocked.Close()
	}
	var counted *replay
	if err == nil {
		if counted, err = v.replay(c, device, unlocked); counted != nil {
			err = counted.raise(ctx, disk)
		}
	}
	if err = errors.Join(err, disk.Close()); err == nil {
		o := &Volume{UUID: unlocked.UUID, stack: stack{mapper: v.Mapper}, replay: counted}
		if err = o.open(t, sectors); err == nil {
			return o, nil
		}
	}
	if counted != nil {
		counted.close()
	}
	return nil, err
}

// unlock reads all that Open reads of a disk. The volume that it returns, also with an error, is the caller's to close.
func (v Volumes) unlock(ctx context.Context, c VolumeConfig, device string, disk *os.File) (*luks.Volume, table, uint64, error) {
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, table{}, 0, fmt.Errorf("reading the device's size: %w", err)
	}
	key, err := v.key(ctx, c.Key)
	if err != nil {
		return nil, table{}, 0, err
	}
	defer clear(key)
	unlocked, err := openHeader(ctx, c, disk, key)
	if err != nil {
		return nil, table{}, 0, err
	}
	t, err := volumeTable(c.mapping(), device, unlocked, uint64(size))
	if err != nil {
		return unlocked, t, 0, err
	}
	if t.cipher.TagSize() == 0 {
		return unlocked, t, t.size / devmapper.SectorSize, nil
	}
	sectors, err := readSuperblock(disk, t)
	return unlocked, t, sectors, err
}

func openHeader(ctx context.Context, c VolumeConfig, disk *os.File, key []byte) (*luks.Volume, error) {
	if c.Header == "" {
		return luks.Open(ctx, disk, key, c.Expect)
	}
	header, err := os.Open(c.Header)
	if err != nil {
		return nil, fmt.Errorf("opening the detached header: %w", err)
	}
	defer header.Close()
	return luks.Open(ctx, header, key, c.Expect)
}

// volumeTable shares its key with the volume, which clears it.
func volumeTable(name, device string, v *luks.Volume, deviceSize uint64) (table, error) {
	cipher, err := cipherOf(v.Layout)
	if err != nil {
		return table{}, err
	}
	size, err := v.DataSize(deviceSize)
	if err != nil {
		return table{}, err
	}
	// A journal: unlike scratch, a volume is to survive a loss of power with every block's tag right.
	return table{
		name: name, id: strings.ReplaceAll(v.UUID, "-", ""), device: device, cipher: cipher, key: v.Key,
		offset: v.Offset, size: size, sectorSize: v.SectorSize, journal: true,
	}, nil
}

func (o *Volume) open(t table, sectors uint64) error {
	d, err := o.stack.open(t, sectors)
	if err != nil {
		return err
	}
	o.Path, o.Size = d.Path, int64(sectors)*devmapper.SectorSize
	return nil
}

// Close removes the mappings and with them the kernel's copy of the key. Unmount before: a device in use stays, with
// an error that wraps unix.EBUSY, and Close may be called again. Behind that the counter is raised, once: an error then
// says that it was not, and the volume is closed.
func (o *Volume) Close() error {
	if err := o.stack.close(); err != nil {
		return fmt.Errorf("closing volume: %w", err)
	}
	if o.replay == nil {
		return nil
	}
	counted := o.replay
	o.replay = nil
	defer counted.close()
	return counted.raiseAgain()
}

// CloseNamed closes a volume that another process has opened, by the name of its mapping, or what an earlier call left
// of it. What there is to remove is asked of the kernel. The error wraps unix.ENXIO if there is nothing.
func CloseNamed(m Mapper, name string) error {
	s := stack{mapper: m}
	for _, layer := range []struct{ name, kind string }{{name + tagsSuffix, "integrity"}, {name, "crypt"}} {
		status, err := m.Status(layer.name)
		switch {
		case errors.Is(err, unix.ENXIO):
		case err != nil:
			return fmt.Errorf("closing volume: %w", err)
		case len(status) != 1 || status[0].Kind != layer.kind:
			return fmt.Errorf("closing volume: mapping %s is not of one target %s", layer.name, layer.kind)
		default:
			s.names = append(s.names, layer.name)
		}
	}
	if len(s.names) == 0 {
		return fmt.Errorf("closing volume: mapping %s: %w", name, unix.ENXIO)
	}
	if err := s.close(); err != nil {
		return fmt.Errorf("closing volume: %w", err)
	}
	return nil
}
