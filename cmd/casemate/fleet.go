// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/standalone"
	"github.com/casemate/casemate/keyprovider"
	"github.com/casemate/casemate/storage"
	"github.com/casemate/casemate/storage/devmapper"
)

const (
	// controlSocket is where ps, logs and stop ask.
	controlSocket = "/run/casemate/control.sock"
	fleetState    = "/run/casemate/standalone"
	// fleetName is a directory in the image store, with layers, bundles and mounts.
	fleetName = "standalone"
	// fleetStop bounds what is undone after the containers have ended.
	fleetStop = 30 * time.Second
)

// unsealer opens sealed secrets.
type unsealer interface {
	Unseal(ctx context.Context, text []byte) ([]byte, error)
}

// fleet runs the containers that configuration declares, for as long as casemate serves.
type fleet struct {
	m      *machine
	images *hubImages
	sealed unsealer
	dir    string // of this fleet alone

	// The rest lives from serve's start to its end.
	runtime *container.Runtime
	undo    []func() error // of the volumes, in the order in which they were opened
}

// newFleet prepares the declared containers. client is nil where no KBS is configured.
func (m *machine) newFleet(client *kbs.Client, keys keyprovider.KeySource, sealed unsealer) (*fleet, error) {
	if err := m.conf.CheckContainerVolumes(); err != nil {
		return nil, err
	}
	base, err := m.storeDir()
	if err != nil {
		return nil, err
	}
	// The kernel lists mounts by their real paths.
	if base, err = filepath.EvalSymlinks(base); err != nil {
		return nil, fmt.Errorf("making the image store: %w", err)
	}
	if t, ok := sealed.(toldUnsealer); ok { // the fleet tells by itself, with the variable's name
		sealed = t.unsealer
	}
	dir := filepath.Join(base, fleetName)
	return &fleet{m: m, images: &hubImages{m: m, client: client, keys: keys, dir: dir}, sealed: sealed, dir: dir}, nil
}

func (f *fleet) part() part { return part{"containers", "unix://" + controlSocket, f.serve} }

// serve starts the containers and answers on l. Whoever holds l is the only one: what an
// earlier process left behind is removed first. All is undone before it returns.
func (f *fleet) serve(ctx context.Context, l net.Listener) (err error) {
	if f.runtime, err = f.m.fleetRuntime(); err != nil {
		return errors.Join(err, l.Close())
	}
	var list []*declared
	defer func() {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), fleetStop)
		defer cancel()
		err = errors.Join(err, f.close(undo, list))
	}()
	if err := f.begin(ctx); err != nil {
		return errors.Join(err, l.Close())
	}
	var specs []standalone.Spec
	for _, c := range f.m.conf.Containers {
		d := &declared{fleet: f, conf: c}
		list = append(list, d)
		spec := standalone.Spec{Name: c.Name, Image: c.Image, Restart: restarts[c.Restart], Run: d.run}
		if f.m.seen != nil {
			spec.Changed = func(s standalone.State) { f.m.seen(c.Name, s) }
		}
		specs = append(specs, spec)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	supervisor := standalone.New(specs, f.m.log)
	down := make(chan struct{})
	go func() {
		defer close(down)
		supervisor.Run(ctx)
	}()
	// A socket that fails ends the containers too: nobody could stop them any more.
	err = supervisor.Serve(ctx, l)
	cancel()
	<-down
	return err
}

var restarts = map[string]standalone.Restart{
	"": standalone.RestartNo, config.RestartNo: standalone.RestartNo,
	config.RestartOnFailure: standalone.RestartOnFailure, config.RestartAlways: standalone.RestartAlways,
}

func (m *machine) fleetRuntime() (*container.Runtime, error) {
	return container.New(container.Config{Root: fleetState, Reaper: m.reaper, Log: m.log})
}

// reclaimFleet ends the containers that a process that was killed has left.
func (m *machine) reclaimFleet(ctx context.Context) error {
	runtime, err := m.fleetRuntime()
	if err != nil {
		return err
	}
	return errors.Join(runtime.Reclaim(ctx), runtime.Close(ctx))
}

// begin removes what a process that was killed has left, and opens the volumes.
func (f *fleet) begin(ctx context.Context) error {
	if err := f.runtime.Reclaim(ctx); err != nil {
		return err
	}
	if err := f.clear(); err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("making the containers' directory: %w", err)
	}
	return f.openVolumes(ctx)
}

// clear unmounts all below the fleet's directory and removes it.
func (f *fleet) clear() error {
	if err := unmountAll(f.dir); err != nil {
		return err
	}
	return os.RemoveAll(f.dir)
}

// unmountAll unmounts dir and all below it.
func unmountAll(dir string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return fmt.Errorf("looking for mounts below %s: %w", dir, err)
	}
	slices.Reverse(mounts) // what was mounted last goes first
	for _, mount := range mounts {
		if err := unix.Unmount(mount.Mountpoint, unix.UMOUNT_NOFOLLOW); err != nil {
			return fmt.Errorf("unmounting %s: %w", mount.Mountpoint, err)
		}
	}
	return nil
}

// volumeNames lists the volumes that containers use, each once.
func (f *fleet) volumeNames() []string {
	var names []string
	for _, c := range f.m.conf.Containers {
		for _, v := range c.Volumes {
			names = append(names, v.Volume)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (f *fleet) volumeDir(name string) string { return filepath.Join(f.dir, "volumes", name) }

// openVolumes opens and mounts every volume that a container uses. One that does not open
// ends the start: a container must not run without its data.
func (f *fleet) openVolumes(ctx context.Context) error {
	names := f.volumeNames()
	if len(names) == 0 {
		return nil
	}
	control, err := devmapper.Open()
	if err != nil {
		return err
	}
	f.undo = append(f.undo, control.Close)
	volumes, err := f.counted(control)
	if err != nil {
		return err
	}
	for _, name := range names {
		c, err := volumeConfig(f.m.conf, name)
		if err != nil {
			return err
		}
		// The mapping may be left over from a process that was killed.
		if err := storage.CloseNamed(control, name); err != nil && !errors.Is(err, unix.ENXIO) {
			return err
		}
		err = f.m.steps.do("open volume "+name, func() error { return ofStage(stageVolume, name, f.openVolume(ctx, volumes, c)) })
		if err != nil {
			return err
		}
	}
	return nil
}

// counted opens volumes by keys and counters of the relying party. Its session lasts as long as they do: behind closing
// a counter is raised once more.
func (f *fleet) counted(m storage.Mapper) (storage.Volumes, error) {
	keys, err := f.m.volumeKeys()
	if err != nil {
		return storage.Volumes{}, err
	}
	f.undo = append(f.undo, func() error {
		keys.close()
		return nil
	})
	return keys.volumes(m), nil
}

// openVolume maps and mounts one volume. Its blocks are authenticated, but data is no place
// for devices or set-uid programs; and once a block of the file system's own does not
// read, nothing is written that would be based on it.
func (f *fleet) openVolume(ctx context.Context, volumes storage.Volumes, c storage.VolumeConfig) error {
	device, err := waitForDisk(ctx, f.m.conf.Volumes[c.Name].Device)
	if err != nil {
		return err
	}
	v, err := volumes.Open(ctx, c, device)
	if err != nil {
		return err
	}
	f.undo = append(f.undo, v.Close)
	dir := f.volumeDir(c.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the mount hides it
		return err
	}
	if err := unix.Mount(v.Path, dir, "ext4", unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mounting volume %s: %w", c.Name, err)
	}
	f.undo = append(f.undo, func() error { return unix.Unmount(dir, unix.UMOUNT_NOFOLLOW) })
	return nil
}

// closer is a step to undo, as closeMounted takes it.
type closer func() error

// Close undoes it.
func (c closer) Close() error { return c() }

// closeVolumes undoes openVolumes, in reverse. The containers have ended, and what they had mounted goes in a moment.
func (f *fleet) closeVolumes() error {
	var errs []error
	for _, undo := range slices.Backward(f.undo) {
		errs = append(errs, closeMounted(closer(undo)))
	}
	return errors.Join(errs...)
}

// close undoes begin and what the containers have left, in reverse.
func (f *fleet) close(ctx context.Context, list []*declared) error {
	errs := []error{f.runtime.Close(ctx)}
	for _, d := range list {
		if d.bundle != nil {
			errs = append(errs, d.bundle.Close())
		}
	}
	errs = append(errs, f.images.Close())
	errs = append(errs, f.closeVolumes())
	if err := errors.Join(errs...); err != nil {
		return err // a directory in which something is mounted stays
	}
	return f.clear()
}
