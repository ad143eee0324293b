// SPDX-License-Identifier: Apache-2.0

package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/storage/devmapper"
)

// verityName is behind the name of a volume in that of the mapping which checks its blocks.
const verityName = "_verity"

// MountVerityRoot opens a volume whose content a hash tree covers, as target describes it on the mapping that it is
// given, and mounts the ext4 in it, read-only and each block checked, as the root file system of a container on point.
// What the container writes goes into memory and is gone with the mount. On error nothing stays. The caller closes.
func MountVerityRoot(ctx context.Context, v Volumes, c VolumeConfig, device, point string, target func(opened string) devmapper.Verity) (*Mounted, error) {
	o, err := v.Open(ctx, c, device)
	if err != nil {
		return nil, err
	}
	m := &Mounted{Point: point, Device: o.Path, Size: o.Size, closers: []func() error{o.Close}}
	if err := m.mountVerity(v.Mapper, c.mapping()+verityName, target(o.Path)); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting volume %s on %s: %w", c.Name, point, err), m.Close())
	}
	return m, nil
}

func (o *Mounted) mountVerity(mapper Mapper, name string, target devmapper.Verity) error {
	s := stack{mapper: mapper}
	d, err := s.add(devmapper.Mapping{Name: name, ReadOnly: true, Targets: []devmapper.Target{target}})
	if err != nil {
		return fmt.Errorf("mapping the hash tree: %w", err)
	}
	o.closers = append(o.closers, s.close)
	base := o.Point + ".parts"
	lower, memory := filepath.Join(base, "lower"), filepath.Join(base, "memory")
	if err := o.mountAt(d.Path, lower, "ext4", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return err
	}
	if err := o.mountAt("tmpfs", memory, "tmpfs", unix.MS_NODEV, "mode=0700"); err != nil {
		return err
	}
	upper, work := filepath.Join(memory, "upper"), filepath.Join(memory, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o700)); err != nil { //nolint:gosec // the root directory of a container
		return err
	}
	options := strings.Join([]string{"lowerdir=" + lower, "upperdir=" + upper, "workdir=" + work}, ",")
	return o.mountAt("overlay", o.Point, "overlay", unix.MS_NODEV|unix.MS_NOATIME, options)
}

// mountAt makes the mount point if need be, mounts, and remembers to undo it.
func (o *Mounted) mountAt(source, point, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(point, 0o755); err != nil { //nolint:gosec // the mounted root decides
		return err
	}
	if err := unix.Mount(source, point, kind, flags, options); err != nil {
		return fmt.Errorf("mounting %s: %w", kind, err)
	}
	o.closers = append(o.closers, unmounter(point))
	return nil
}
