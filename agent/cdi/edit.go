// SPDX-License-Identifier: Apache-2.0

package cdi

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Dirs are where a root keeps its specifications: those of the image, and those that were made when it booted.
func Dirs() []string { return []string{"/etc/cdi", "/var/run/cdi"} }

// Registry resolves names. It reads the files anew for each container: a driver may write one when it has found its
// device.
type Registry struct {
	dirs []string
}

// New makes a registry of directories of the measured root. Nothing is read yet.
func New(dirs []string) *Registry { return &Registry{dirs: dirs} }

// allowed is what an edited container may have beyond the defaults.
type allowed struct {
	devices []specs.LinuxDevice
	sources []string
}

// ErrUnknown is wrapped by every error about a device that no specification has.
var ErrUnknown = errors.New("there is no such device")

// Edit gives a container the devices of these names, VENDOR/CLASS=DEVICE. It changes Process, Mounts and Linux.Devices
// of the spec, all of which must be there, and returns the device nodes and the directories of bind mounts that it has
// added. What is mounted is read-only, without devices and other users' rights.
func (r *Registry) Edit(names []string, s *specs.Spec) (devices []specs.LinuxDevice, sources []string, err error) {
	files, err := load(r.dirs)
	if err != nil {
		return nil, nil, err
	}
	var out allowed
	var used []*file
	for _, name := range names {
		f, d, err := find(files, name)
		if err == nil {
			err = apply(&d.Edits, s, &out)
		}
		if err == nil && !slices.Contains(used, f) {
			used = append(used, f)
			err = apply(&f.Edits, s, &out)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("device %.80q: %w", name, err)
		}
	}
	return out.devices, out.sources, nil
}

// find wants exactly one: which of two is meant would be chance.
func find(files []*file, name string) (*file, *device, error) {
	of, short, ok := strings.Cut(name, "=")
	if !ok || !kind.MatchString(of) || !deviceName.MatchString(short) {
		return nil, nil, fmt.Errorf("want VENDOR/CLASS=DEVICE: %w", ErrUnknown)
	}
	var in *file
	var found *device
	for _, f := range files {
		for i := range f.Devices {
			switch {
			case f.Kind != of || f.Devices[i].Name != short:
			case found != nil:
				return nil, nil, errors.New("it is described twice")
			default:
				in, found = f, &f.Devices[i]
			}
		}
	}
	if found == nil {
		return nil, nil, ErrUnknown
	}
	return in, found, nil
}

func apply(e *edits, s *specs.Spec, out *allowed) error {
	for _, v := range e.Env {
		name, _, ok := strings.Cut(v, "=")
		if !ok || name == "" || strings.ContainsRune(v, 0) {
			return fmt.Errorf("variable %.80q", v)
		}
		s.Process.Env = slices.DeleteFunc(slices.Clone(s.Process.Env), func(old string) bool { return strings.HasPrefix(old, name+"=") })
		s.Process.Env = append(s.Process.Env, v)
	}
	for _, n := range e.Nodes {
		d, err := linuxDevice(n)
		if err != nil {
			return err
		}
		s.Linux.Devices = append(s.Linux.Devices, d)
		out.devices = append(out.devices, d)
	}
	for _, m := range e.Mounts {
		options := append(slices.Clone(m.Options), "rbind", "rprivate", "ro", "nosuid", "nodev")
		s.Mounts = append(s.Mounts, specs.Mount{Source: m.HostPath, Destination: m.ContainerPath, Type: "bind", Options: options})
		out.sources = append(out.sources, filepath.Dir(m.HostPath))
	}
	for _, g := range e.Groups {
		if g != 0 && !slices.Contains(s.Process.User.AdditionalGids, g) {
			s.Process.User.AdditionalGids = append(slices.Clone(s.Process.User.AdditionalGids), g)
		}
	}
	return nil
}

// linuxDevice takes the numbers from the node in the guest; where the file has some too, they must be the same.
func linuxDevice(n node) (specs.LinuxDevice, error) {
	from := n.HostPath
	if from == "" {
		from = n.Path
	}
	var st unix.Stat_t
	if err := unix.Stat(from, &st); err != nil {
		return specs.LinuxDevice{}, fmt.Errorf("looking for a device node: %w", &os.PathError{Op: "stat", Path: from, Err: err})
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR {
		return specs.LinuxDevice{}, fmt.Errorf("%s is no character device", from)
	}
	d := specs.LinuxDevice{Path: n.Path, Type: "c", Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)), UID: n.UID, GID: n.GID}
	if n.Major != 0 && (n.Major != d.Major || n.Minor != d.Minor) {
		return specs.LinuxDevice{}, fmt.Errorf("%s is device %d:%d and not %d:%d", from, d.Major, d.Minor, n.Major, n.Minor)
	}
	if n.FileMode != nil {
		mode := os.FileMode(*n.FileMode & 0o777)
		d.FileMode = &mode
	}
	return d, nil
}
