// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
	"github.com/casemate/casemate/storage/krun"
	"github.com/casemate/casemate/storage/luks"
	"github.com/casemate/casemate/verity"
)

const (
	diskName = "casemate-disk" // in /dev/mapper
	diskDir  = "/run/casemate/disk"
	// diskConfig is where buildah leaves the image's config, inside of the encryption.
	diskConfig = ".krun_config.json"
)

func runDisk(ctx context.Context, args []string) error {
	return among(ctx, args, []verb{{"run", "[--tty] DEV", "attest, unlock a confidential-workload disk and run its program", diskRun}})
}

// diskRun is casemate disk run: attest, unlock a disk of buildah mkcw or of casemate-build, run its program, close it.
func diskRun(ctx context.Context, args []string) (err error) {
	var terminal bool
	o, rest, err := parseGuest(args, 1, 1, func(s *flag.FlagSet) {
		s.BoolVar(&terminal, "tty", false, "give the container a terminal")
	})
	if err != nil {
		return err
	}
	device, err := filepath.Abs(rest[0])
	if err != nil {
		return err
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	if err := m.canMeasure(); err != nil {
		return err
	}
	if err := m.checkDisk(device); err != nil {
		return err
	}
	keys, err := m.volumeKeys()
	if err != nil {
		return err
	}
	defer keys.close()
	control, err := devmapper.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, control.Close()) }()
	root := filepath.Join(diskDir, "rootfs")
	var disk *storage.Mounted
	err = m.steps.do("unlock and mount the disk", func() error {
		disk, err = mountDisk(ctx, keys.volumes(control), m.conf.Disk, device, root)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeMounted(disk)) }()
	spec, err := imagepull.NewRootSpec(root, diskConfig, imagepull.BundleOptions{Terminal: terminal})
	if err != nil {
		return err
	}
	id := fmt.Sprintf("disk-%d", os.Getpid())
	return m.contain(ctx, started{ID: id, Image: "disk:" + m.conf.Disk.WorkloadID}, &imagepull.Bundle{Dir: diskDir, Rootfs: root, Spec: spec}, container.Policy{})
}

// mountDisk mounts the disk of the form that configuration says, and no other.
func mountDisk(ctx context.Context, v storage.Volumes, d config.Disk, device, root string) (*storage.Mounted, error) {
	if d.Verity == "" {
		return storage.MountRoot(ctx, v, diskVolume(d), device, root)
	}
	pin, err := verity.ParsePin(d.Verity)
	if err != nil {
		return nil, fmt.Errorf("disk.verity: %w", err)
	}
	c := diskVolume(d)
	c.Expect = luks.Expect{OwnHeader: true, Layout: luks.Layout{
		Type: luks.TypeLUKS2, Cipher: luks.CipherAESXTS, SectorSize: pin.DataBlockSize, Offset: luks.DefaultOffset,
	}}
	return storage.MountVerityRoot(ctx, v, c, device, root, func(opened string) devmapper.Verity { return verityTarget(pin, opened, opened) })
}

// diskVolume is the one layout that buildah writes.
func diskVolume(d config.Disk) storage.VolumeConfig {
	return storage.VolumeConfig{Name: diskName, Key: d.Key, Expect: luks.Expect{Layout: luks.Layout{
		Type: luks.TypeLUKS1, Cipher: luks.CipherAESXTS, SectorSize: devmapper.SectorSize, Offset: luks.LUKS1Offset,
	}}}
}

// checkDisk compares what the disk says of itself, which is the host's to write, with measured configuration, before a
// key is asked for.
func (m *machine) checkDisk(device string) error {
	if m.conf.Disk == (config.Disk{}) {
		return errors.New("no confidential-workload disk in the measured configuration: disk.workload_id and disk.key")
	}
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("reading the size of %s: %w", device, err)
	}
	t, err := krun.ReadTrailer(f, size)
	if err != nil {
		return err
	}
	return claims(t, m.conf)
}

// claims fails for each claim of a disk that is not what configuration says.
func claims(t krun.Trailer, m config.Measured) error {
	var errs []error
	differs := func(what, got, want string) {
		if got != want {
			errs = append(errs, fmt.Errorf("the disk's %s is %.128q, and the measured configuration's %q", what, got, want))
		}
	}
	differs("workload id", t.WorkloadID, m.Disk.WorkloadID)
	differs("attestation address", strings.TrimSuffix(t.AttestationURL, "/"), strings.TrimSuffix(m.KBS.URL, "/"))
	return errors.Join(errs...)
}
