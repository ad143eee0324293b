// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

// SecureMount is one request to confidential-data-hub's SecureMount for a block device, once it has been understood.
// Who sent it is not known here: kata's agent passes on what the host said. So it says nothing about integrity,
// which is always on, and cannot bring a key of its own: see VolumeOf.
type SecureMount struct {
	DeviceID   string // MAJOR:MINOR; exactly one of the two is set
	DevicePath string // absolute, in /dev
	Encrypted  bool   // an existing volume; otherwise new scratch, whatever the device holds
	Key        string // URI or sealed secret that names the volume; empty for scratch
	FileSystem bool   // mount an ext4 on MountPoint; otherwise make MountPoint a symbolic link to the mapping
	MkfsOpts   string // arguments of mkfs.ext4 for new scratch with a file system, to be parsed by its maker
	Name       string // of the mapping; empty: one is made up
	MountPoint string // absolute
}

// volumeTypeBlock is the volume_type that is served; alibaba-cloud-oss is the other one there is.
const volumeTypeBlock = "block-device"

// maxOption caps the value of one option in bytes: a sealed secret is the longest.
const maxOption = 16 << 10

var (
	deviceID   = regexp.MustCompile(`^(0|[1-9][0-9]{0,7}):(0|[1-9][0-9]{0,7})$`)
	mapperName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
)

// maxMapperName is the longest mapperName in characters.
const maxMapperName = 63

// OptionError is an option, by the name that the caller gave it, whose value is not served.
type OptionError struct{ Name, Reason string }

func (e *OptionError) Error() string { return fmt.Sprintf("option %q: %s", e.Name, e.Reason) }

// ParseSecureMount reads a request. Every option is understood and obeyed, or it is refused with an *OptionError: a
// request that asks for less than encryption with integrity, for ZFS, or for something unknown.
func ParseSecureMount(volumeType string, options map[string]string, flags []string, mountPoint string) (SecureMount, error) {
	m, err := parseSecureMount(volumeType, options, flags, mountPoint)
	if err != nil {
		return SecureMount{}, fmt.Errorf("reading a secure mount: %w", err)
	}
	return m, nil
}

func parseSecureMount(volumeType string, options map[string]string, flags []string, mountPoint string) (SecureMount, error) {
	// kata's agent writes the directory of its image store with a slash at its end.
	m := SecureMount{MountPoint: strings.TrimSuffix(mountPoint, "/")}
	switch {
	case volumeType != volumeTypeBlock:
		return m, fmt.Errorf("volume type %q, want %q", volumeType, volumeTypeBlock)
	case len(flags) > 0:
		return m, fmt.Errorf("flags %q, want none", flags)
	case !absolute(m.MountPoint):
		return m, fmt.Errorf("mount point %q, want an absolute path", mountPoint)
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		reason := ""
		if value := options[name]; len(value) > maxOption {
			reason = fmt.Sprintf("%d bytes, want at most %d", len(value), maxOption)
		} else {
			reason = m.option(name, value)
		}
		if reason != "" {
			return m, &OptionError{name, reason}
		}
	}
	for _, name := range []string{"sourceType", "encryptionType", "targetType"} {
		if _, ok := options[name]; !ok {
			return m, &OptionError{name, "it is missing"}
		}
	}
	return m, m.check(options)
}

// option takes one option over, or says why not.
func (m *SecureMount) option(name, value string) (refusal string) {
	oneOf := func(list ...string) string {
		if slices.Contains(list, value) {
			return ""
		}
		return fmt.Sprintf("%q, want %s", value, strings.Join(list, " or "))
	}
	switch name {
	case "deviceId":
		if m.DeviceID = value; !deviceID.MatchString(value) {
			return fmt.Sprintf("%q, want MAJOR:MINOR", value)
		}
	case "devicePath":
		// Elsewhere a container could make a link, and let it lead to another device once that has been looked at.
		if m.DevicePath = value; !absolute(value) || !strings.HasPrefix(value, "/dev/") {
			return fmt.Sprintf("%q, want /dev/NAME", value)
		}
	case "sourceType":
		m.Encrypted = value == "encrypted"
		return oneOf("empty", "encrypted")
	case "encryptionType":
		return oneOf("luks2")
	case "key":
		m.Key = value
		return keyForm(value)
	case "targetType":
		m.FileSystem = value == "fileSystem"
		return oneOf("device", "fileSystem")
	case "filesystemType":
		return oneOf("ext4")
	case "mkfsOpts":
		m.MkfsOpts = value
	case "dataIntegrity":
		// Left out it means false there and true here: more than was asked for is no harm, less is.
		return oneOf("true")
	case "mapperName":
		if m.Name = value; len(value) > maxMapperName || !mapperName.MatchString(value) {
			return "want at most 63 of letters, digits and ._-"
		}
	case "pool", "dataset":
		return "ZFS is not served"
	default:
		return "it is not known"
	}
	return ""
}

// check refuses options that do not go together.
func (m *SecureMount) check(options map[string]string) error {
	has := func(name string) bool { _, ok := options[name]; return ok }
	switch {
	case has("deviceId") == has("devicePath"):
		return &OptionError{"deviceId", "want either this or devicePath"}
	case m.Encrypted && !has("key"):
		return &OptionError{"key", "it is missing, and a random one opens no volume"}
	case !m.Encrypted && has("key"):
		// The hub would keep the new header in guest memory: no later boot can use that key either.
		return &OptionError{"key", "scratch has a random key: nothing can open it again"}
	case has("mkfsOpts") && (m.Encrypted || !m.FileSystem):
		return &OptionError{"mkfsOpts", "no file system is made"}
	case has("filesystemType") && !m.FileSystem:
		return &OptionError{"filesystemType", "no file system is mounted"}
	}
	return nil
}

// keyForm tells the three forms of a key apart from anything else. The value never gets into the error: it may be the
// key itself, misplaced.
func keyForm(value string) (refusal string) {
	file, isFile := strings.CutPrefix(value, "file://")
	switch {
	case strings.HasPrefix(value, "sealed.") && len(value) > len("sealed."):
	case strings.HasPrefix(value, "kbs:///") && len(value) > len("kbs:///"):
	case isFile && absolute(file):
	default:
		return "want kbs:///REPOSITORY/TYPE/TAG, file:///PATH or sealed.SECRET"
	}
	return ""
}

// absolute wants a path in its shortest form.
func absolute(p string) bool {
	return strings.HasPrefix(p, "/") && p != "/" && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

// ErrNotMeasured is wrapped when a request names a volume that measured configuration does not.
var ErrNotMeasured = errors.New("no configured volume has this key")

// VolumeOf returns the volume that a request for an existing one means: the one of the measured volumes that has
// exactly its key. Everything else about it, the layout above all, comes from there. Two volumes with that key are
// an error, since the request does not say which.
func (m SecureMount) VolumeOf(measured []VolumeConfig) (VolumeConfig, error) {
	var found []VolumeConfig
	for _, v := range measured {
		if m.Encrypted && v.Key == m.Key {
			found = append(found, v)
		}
	}
	switch len(found) {
	case 0:
		return VolumeConfig{}, ErrNotMeasured
	case 1:
		return found[0], nil
	}
	return VolumeConfig{}, fmt.Errorf("%d configured volumes have this key", len(found))
}
