// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/cmd/casemate/internal/standalone"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/imagepull/trust"
)

// declared is one container of a fleet. Its supervisor calls run, one call at a time.
type declared struct {
	fleet  *fleet
	conf   config.Container
	bundle *imagepull.Bundle // nil before the first pull; restarts use it again
	digest string
	logged bool // the event log has it
}

// guestFiles are copied into every container, which shares the guest's network.
var guestFiles = []string{"/etc/resolv.conf", "/etc/hosts"}

// maxGuestFile caps each of them.
const maxGuestFile = 64 << 10

// run runs the container once. The image is pulled at the first time only, so every
// restart is of the digest that was measured.
func (d *declared) run(ctx context.Context, p *standalone.Process) (code int, err error) {
	defer func() { d.fleet.m.tell("", d.conf.Name, err) }()
	if err := d.prepare(ctx); err != nil {
		return 0, final(err)
	}
	b, err := d.open(ctx)
	if err != nil {
		return 0, final(err)
	}
	out := keepOpen{p.Output()}
	c, err := d.fleet.runtime.Create(ctx, "app-"+d.conf.Name, b, container.Stdio{Stdout: out, Stderr: out})
	if err != nil {
		return 0, final(err)
	}
	defer func() {
		undo, cancel := cleanup(ctx)
		defer cancel()
		err = errors.Join(err, c.Delete(undo))
	}()
	if !d.logged {
		if err := d.fleet.m.measureStart(started{ID: c.ID(), Image: d.conf.Image, Digest: d.digest}); err != nil {
			return 0, err
		}
		d.logged = true
	}
	if err := c.Start(ctx); err != nil {
		return 0, err
	}
	p.Started(c.Pid(), d.digest)
	exit, err := waitOrStop(ctx, c)
	if err != nil {
		return 0, err
	}
	return exit.Code, waitOutput(ctx, c)
}

// final marks what another attempt would not change.
func final(err error) error {
	for _, hopeless := range []error{trust.ErrDenied, kbs.ErrDenied, container.ErrRefused, imagepull.ErrReference, imagepull.ErrBlocked, imagepull.ErrInsecure, imagepull.ErrUnsupported, imagepull.ErrPlatform} {
		if errors.Is(err, hopeless) {
			return fmt.Errorf("%w: %w", standalone.ErrFinal, err)
		}
	}
	return err
}

// prepare pulls the image and mounts it.
func (d *declared) prepare(ctx context.Context) error {
	if d.bundle != nil {
		return nil
	}
	img, err := d.fleet.images.pull(ctx, d.conf.Image)
	if err != nil {
		return err
	}
	d.digest = img.Manifest.String()
	d.bundle, err = imagepull.NewBundle(img, filepath.Join(d.fleet.dir, "bundles", d.conf.Name), imagepull.BundleOptions{
		Args: d.conf.Args, Env: d.conf.Env, User: d.conf.User,
	})
	return err
}

// open completes the spec for one run: secrets are in it and in the container, and in no
// file.
func (d *declared) open(ctx context.Context) (container.Bundle, error) {
	spec, process := *d.bundle.Spec, *d.bundle.Spec.Process
	process.Env = slices.Clone(process.Env)
	spec.Process = &process
	for _, entry := range d.conf.SealedEnv {
		name, sealed, _ := strings.Cut(entry, "=")
		secret, err := d.fleet.sealed.Unseal(ctx, []byte(sealed))
		if err != nil {
			return container.Bundle{}, ofStage(stageSealed, name, fmt.Errorf("unsealing %s: %w", name, err))
		}
		value := string(secret)
		clear(secret)
		if strings.ContainsRune(value, 0) {
			return container.Bundle{}, fmt.Errorf("unsealing %s: it has a NUL byte, which no variable can hold", name)
		}
		process.Env = slices.DeleteFunc(process.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		process.Env = append(process.Env, name+"="+value)
	}
	files, err := d.guestFiles()
	if err != nil {
		return container.Bundle{}, err
	}
	spec.Mounts = slices.Concat(spec.Mounts, files, d.volumes())
	return container.Bundle{Dir: d.bundle.Dir, Spec: &spec, Policy: container.Policy{
		MountSources: []string{d.filesDir(), d.fleet.volumeDir("")},
	}}, nil
}

func (d *declared) filesDir() string { return filepath.Join(d.bundle.Dir, "files") }

// guestFiles copies the guest's own files for names, as they are now.
func (d *declared) guestFiles() ([]specs.Mount, error) {
	if err := os.MkdirAll(d.filesDir(), 0o700); err != nil {
		return nil, err
	}
	var mounts []specs.Mount
	for _, path := range guestFiles {
		text, err := readCapped(path, maxGuestFile)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		copied := filepath.Join(d.filesDir(), filepath.Base(path))
		if err := os.WriteFile(copied, text, 0o644); err != nil { //nolint:gosec // the container's users read it
			return nil, err
		}
		mounts = append(mounts, specs.Mount{Destination: path, Type: "bind", Source: copied, Options: []string{"bind", "ro", "nosuid", "nodev", "noexec"}})
	}
	return mounts, nil
}

func (d *declared) volumes() []specs.Mount {
	var mounts []specs.Mount
	for _, v := range d.conf.Volumes {
		mode := "rw"
		if v.ReadOnly {
			mode = "ro"
		}
		mounts = append(mounts, specs.Mount{Destination: v.Path, Type: "bind", Source: d.fleet.volumeDir(v.Volume), Options: []string{"bind", mode, "nosuid", "nodev"}})
	}
	return mounts
}
