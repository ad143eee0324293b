// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// VolumeKeyDir is the one directory from which a volume's key may be read as a file. Only the guest's own user has
// rights in it.
const VolumeKeyDir = "/run/casemate/keys"

// IntegrityNone is how a volume without integrity says so.
const IntegrityNone = "none"

// FSExt4 and FSNone are what a volume may hold: a file system, or blocks that read as zeros at first.
const (
	FSExt4 = "ext4"
	FSNone = "none"
)

// CreateNever and CreateFirstUse are what may happen to a blank disk where a volume is expected.
const (
	CreateNever    = "never"
	CreateFirstUse = "first-use"
)

// Volume is everything that decides how a volume is read. The disk is the host's, so what is left out here is not
// taken from the disk: every key but size and header must be set.
type Volume struct {
	// Key is kbs:///REPOSITORY/TYPE/TAG, file:///run/casemate/keys/NAME or a sealed secret.
	Key string `toml:"key"`
	// Type is "luks2" or "luks1".
	Type string `toml:"type"`
	// Cipher is "aes-xts-plain64" or "aegis128-random".
	Cipher string `toml:"cipher"`
	// Integrity is "hmac(sha256)" with the first, "aead" with the second, or "none".
	Integrity string `toml:"integrity"`
	// SectorSize is 512 or 4096 bytes.
	SectorSize *int `toml:"sector_size"`
	// Offset is where data begins on the device, in bytes.
	Offset *int64 `toml:"offset"`
	// Size is in bytes; 0 means up to the device's end.
	Size int64 `toml:"size"`
	// Header is the absolute path of a detached header.
	Header string `toml:"header"`
	// OwnHeader says that casemate made the volume: its header must be authenticated by the volume's key.
	OwnHeader *bool `toml:"own_header"`
	// Replay is "kbs" for a volume whose counter the relying party keeps, so that an older image of its whole disk is
	// refused, and left out for one without.
	Replay string `toml:"replay"`
	// FS is "ext4" or "none".
	FS string `toml:"fs"`
	// Create is "never" (also when it is left out) or "first-use": a container that is to get the volume, on a blank disk,
	// makes it if the relying party releases Grant, a secret that it gives out once and that reads as the volume's name.
	Create string `toml:"create"`
	Grant  string `toml:"grant"`
	// UID and GID own the root directory of a new file system.
	UID uint32 `toml:"uid"`
	GID uint32 `toml:"gid"`
	// Mount is where in a container the volume is mounted; empty: in none.
	Mount string `toml:"mount"`
	// Device says which disk is meant, and with Mount it must be set. In a pod it is the device path of the container
	// that gets the volume, as the pod's file names it; otherwise, and for what casemate serve opens, /dev/NAME or
	// serial:SERIAL in the guest.
	Device string `toml:"device"`
}

// ReplayKBS is the one value of Volume.Replay.
const ReplayKBS = "kbs"

// volumeName is also the name of a mapping. It has up to maxVolumeName characters.
var volumeName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

const maxVolumeName = 63

func checkVolumes(volumes map[string]Volume) error {
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		if name == MountScratch {
			return fmt.Errorf("volume %q: the name means scratch", name)
		}
		if len(name) > maxVolumeName || !volumeName.MatchString(name) {
			return fmt.Errorf("volume %q: want a name of at most 63 of a-z, 0-9 and ._-", name)
		}
		if err := volumes[name].check(); err != nil {
			return fmt.Errorf("volume.%s: %w", name, err)
		}
		for other, v := range volumes {
			if d := volumes[name].Device; other != name && d != "" && v.Device == d {
				return fmt.Errorf("volume.%s.device %q: it is volume.%s's too", name, d, other)
			}
		}
	}
	return nil
}

// check wants every key; what the values may be together is the business of who opens the volume.
func (v Volume) check() error {
	file, isFile := strings.CutPrefix(v.Key, "file://"+VolumeKeyDir+"/")
	switch {
	case strings.HasPrefix(v.Key, "sealed."):
	case !strings.HasPrefix(v.Key, "kbs:///") && (!isFile || file == "" || strings.Contains(file, "/")):
		return fmt.Errorf("key %q: want kbs:///REPOSITORY/TYPE/TAG or file://%s/NAME", v.Key, VolumeKeyDir)
	case v.Type == "" || v.Cipher == "":
		return errors.New("type and cipher: want both")
	case v.Integrity == "":
		return fmt.Errorf("integrity: want it set, to %q where there is none", IntegrityNone)
	case v.SectorSize == nil || v.Offset == nil:
		return errors.New("sector_size and offset: want both")
	case *v.SectorSize < 0 || *v.Offset < 0 || v.Size < 0:
		return fmt.Errorf("sector_size %d, offset %d, size %d: want none below 0", *v.SectorSize, *v.Offset, v.Size)
	case v.OwnHeader == nil:
		return errors.New("own_header: want true, or false for a volume that casemate did not make")
	case v.Replay != "" && v.Replay != ReplayKBS:
		return fmt.Errorf("replay %q: want %q, or nothing", v.Replay, ReplayKBS)
	case v.Replay != "" && (!*v.OwnHeader || v.Header != ""):
		return errors.New("replay: want own_header = true, and no detached header")
	case (v.UID != 0 || v.GID != 0) && v.FS != FSExt4:
		return errors.New("uid and gid: there is no file system whose root directory they would own")
	case v.FS != FSExt4 && v.FS != FSNone:
		return fmt.Errorf("fs %q: want %q or %q", v.FS, FSExt4, FSNone)
	}
	return errors.Join(v.checkCreate(), v.checkMount())
}

// checkCreate: a disk that is formatted needs its owner's word, which comes from the relying party alone.
func (v Volume) checkCreate() error {
	switch v.Create {
	case "", CreateNever:
		if v.Grant != "" {
			return fmt.Errorf("grant: want create = %q with it", CreateFirstUse)
		}
		return nil
	case CreateFirstUse:
	default:
		return fmt.Errorf("create %q: want %q or %q", v.Create, CreateFirstUse, CreateNever)
	}
	switch {
	case !strings.HasPrefix(v.Grant, "kbs:///") || v.Grant == v.Key:
		return fmt.Errorf("grant %q: want kbs:///REPOSITORY/TYPE/TAG, and not the key", v.Grant)
	case v.Mount == "":
		return errors.New("create: want mount and device with it, or nobody uses the volume for the first time")
	case !*v.OwnHeader || v.Header != "":
		return errors.New("create: want own_header = true, and no detached header")
	}
	return nil
}

// checkMount wants a mount point that hides nothing which the container needs.
func (v Volume) checkMount() error {
	if v.Device == "" && v.Mount == "" {
		return nil
	}
	if err := checkDevice("device", v.Device); err != nil || v.Mount == "" {
		return err
	}
	first, _, _ := strings.Cut(strings.TrimPrefix(v.Mount, "/"), "/")
	switch {
	case v.FS != FSExt4:
		return fmt.Errorf("mount: fs is %q, and there is no file system to mount", v.FS)
	case !strings.HasPrefix(v.Mount, "/") || path.Clean(v.Mount) != v.Mount || slices.Contains([]string{"", "proc", "sys", "dev"}, first):
		return fmt.Errorf("mount %q: want an absolute path outside of /proc, /sys and /dev", v.Mount)
	}
	return nil
}

// checkMounts wants each volume that the data hub may mount to stand in the same
// file: the measured root does not serve what initdata describes, nor the other way round.
func (m Measured) checkMounts() error {
	for _, name := range m.Services.SecureMount {
		if _, ok := m.Volumes[name]; !ok && name != MountScratch {
			return fmt.Errorf("services.secure_mount: there is no volume %q", name)
		}
	}
	return m.checkReplay()
}

// checkReplay: over plain HTTP whoever is on the path could answer with any generation. The client refuses to ask; here
// it is said early.
func (m Measured) checkReplay() error {
	for name, v := range m.Volumes {
		if v.Replay != "" && strings.HasPrefix(m.KBS.URL, "http://") {
			return fmt.Errorf("volume.%s.replay: nothing authenticates a counter that is kept behind kbs.plain_http", name)
		}
	}
	return nil
}

// joinVolumes lets either source name volumes; one that both name must be the same in both.
func joinVolumes(a, b map[string]Volume) (map[string]Volume, error) {
	if len(b) == 0 {
		return a, nil
	}
	all := maps.Clone(b)
	for name, v := range a {
		if other, ok := b[name]; ok && !reflect.DeepEqual(v, other) {
			return nil, fmt.Errorf("volume.%s is set twice and differs", name)
		}
		all[name] = v
	}
	return all, nil
}

func volumeWeaknesses(volumes map[string]Volume) []string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		v := volumes[name]
		if v.Integrity == IntegrityNone {
			list = append(list, fmt.Sprintf("volume.%s.integrity: whoever holds the disk can change its blocks unnoticed", name))
		}
		if v.OwnHeader != nil && !*v.OwnHeader {
			list = append(list, fmt.Sprintf("volume.%s.own_header: its header is compared with this configuration, but nothing authenticates it", name))
		}
	}
	return list
}
