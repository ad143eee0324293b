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

// Volume is everything that decides how a volume is read. The disk is the host's, so what is left out here is not
// taken from the disk: every key but size and header must be set.
type Volume struct {
	// Key is kbs:///REPOSITORY/TYPE/TAG or file:///run/casemate/keys/NAME.
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
	// Device is the absolute path at which casemate serve finds the volume for containers. Whatever lies there is only
	// opened if it is what the other keys say.
	Device string `toml:"device"`
	// OwnHeader says that casemate made the volume: its header must be authenticated by the volume's key.
	OwnHeader *bool `toml:"own_header"`
}

// volumeName is also the name of a mapping.
var volumeName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkVolumes(volumes map[string]Volume) error {
	for _, name := range slices.Sorted(maps.Keys(volumes)) {
		if !volumeName.MatchString(name) {
			return fmt.Errorf("volume %q: want a name of at most 63 of a-z, 0-9 and ._-", name)
		}
		if err := volumes[name].check(); err != nil {
			return fmt.Errorf("volume.%s: %w", name, err)
		}
	}
	return nil
}

// check wants every key; what the values may be together is the business of who opens the volume.
func (v Volume) check() error {
	file, isFile := strings.CutPrefix(v.Key, "file://"+VolumeKeyDir+"/")
	switch {
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
	case v.Device != "" && (!strings.HasPrefix(v.Device, "/dev/") || path.Clean(v.Device) != v.Device):
		return fmt.Errorf("device %q: want a clean path below /dev", v.Device)
	case v.OwnHeader == nil:
		return errors.New("own_header: want true, or false for a volume that casemate did not make")
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
