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
	"time"

	"golang.org/x/sys/unix"

	"github.com/casemate/casemate/agent/container"
	"github.com/casemate/casemate/cmd/casemate/internal/config"
	"github.com/casemate/casemate/imagepull"
	"github.com/casemate/casemate/keyprovider"
)

const (
	// defaultStore is on the tmpfs of a guest: memory that the TEE encrypts.
	defaultStore = "/run/casemate/image"
	stateDir     = "/run/casemate/containers"
	// stopGrace is how long a container may take to end after SIGTERM.
	stopGrace = 10 * time.Second
	// cleanupTime bounds what is undone after the caller has gone.
	cleanupTime = 30 * time.Second
)

// runRun is the whole chain: attest, get the key, pull, decrypt, run.
func runRun(ctx context.Context, args []string) (err error) {
	var terminal bool
	var devices []string
	o, rest, err := parseGuest(args, 1, -1, func(s *flag.FlagSet) {
		s.BoolVar(&terminal, "tty", false, "give the container a terminal")
		s.Func("layer", "a device or file with one of the image's layers, for each of them; none is downloaded", func(path string) error {
			devices = append(devices, path)
			return nil
		})
	})
	if err != nil {
		return err
	}
	image, argv := rest[0], commandLine(rest[1:])
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	defer m.tellUntil(ctx)(&err)
	if err := m.scratch.open(ctx, m); err != nil {
		return ofStage(stageScratch, m.conf.Scratch.Device, err)
	}
	defer func() { err = errors.Join(err, m.scratch.close()) }()
	dir, err := m.workDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	layers := new(layerMaps)
	defer func() { err = errors.Join(err, layers.close()) }()
	source := pulled
	if len(devices) > 0 {
		source = layers.source(devices)
	}
	puller, img, err := m.pullFrom(ctx, image, filepath.Join(dir, "store"), source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, puller.Close()) }()

	var bundle *imagepull.Bundle
	err = m.steps.do("mount the root file system", func() error {
		bundle, err = imagepull.NewBundle(img, filepath.Join(dir, "bundle"), imagepull.BundleOptions{Args: argv, Terminal: terminal})
		return err
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bundle.Close()) }()
	volumes := new(podVolumes)
	defer func() { err = errors.Join(err, volumes.close()) }()
	policy, err := volumes.forRun(ctx, m, bundle)
	if err != nil {
		return err
	}
	return m.contain(ctx, started{ID: "run-" + filepath.Base(dir), Image: image, Digest: img.Manifest.String()}, bundle, policy)
}

// commandLine is what replaces the image's Cmd; nil keeps it.
func commandLine(rest []string) []string {
	if len(rest) > 0 && rest[0] == "--" {
		return rest[1:]
	}
	if len(rest) == 0 {
		return nil
	}
	return rest
}

// workDir is this run's own place in the store: a store has one user at a time.
func (m *machine) workDir() (string, error) {
	base, err := m.storeDir()
	if err != nil {
		return "", err
	}
	return os.MkdirTemp(base, "")
}

// storeDir is where images and what containers write are kept.
func (m *machine) storeDir() (string, error) {
	base := m.conf.Image.Store
	switch {
	case m.conf.Scratch != config.Scratch{}:
		if m.scratch.size() == 0 {
			return "", errors.New("making the image store: scratch is configured, and it is not open; memory does not take its place")
		}
		base = scratchPoint
	case base == "":
		base = defaultStore
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("making the image store: %w", err)
	}
	return base, nil
}

// layerSource brings an image's layers in and says what was done about them.
type layerSource func(ctx context.Context, m *machine, puller *imagepull.Puller, image string) (*imagepull.Image, string, error)

// pulled is the source that downloads them.
func pulled(ctx context.Context, _ *machine, puller *imagepull.Puller, image string) (*imagepull.Image, string, error) {
	img, err := puller.Pull(ctx, image)
	if err != nil {
		return nil, "", err
	}
	return img, fmt.Sprintf("verified: %d layers (%d encrypted) by digest, MAC and DiffID", len(img.Layers), img.Encrypted), nil
}

// source is the one that takes them from devices. They stay open until p is closed.
func (p *layerMaps) source(devices []string) layerSource {
	return func(ctx context.Context, m *machine, puller *imagepull.Puller, image string) (*imagepull.Image, string, error) {
		img, err := p.image(ctx, m, puller, image, devices)
		if err != nil {
			return nil, "", err
		}
		return img.Image, fmt.Sprintf("bound: %d layers on devices, by the root hashes that manifest or configuration names; blocks are checked when they are read", len(devices)), nil
	}
}

// pull attests as far as the configuration and the image need it, and pulls.
func (m *machine) pull(ctx context.Context, image, store string) (*imagepull.Puller, *imagepull.Image, error) {
	return m.pullFrom(ctx, image, store, pulled)
}

// pullFrom is pull with the layers from a source.
func (m *machine) pullFrom(ctx context.Context, image, store string, source layerSource) (_ *imagepull.Puller, _ *imagepull.Image, err error) {
	defer func() { err = ofPull(image, err) }()
	if err := m.canMeasure(); err != nil {
		return nil, nil, err
	}
	if len(m.conf.Credentials) > 0 {
		m.steps.say("credentials are not written here: casemate serve and confidential-data-hub do that")
	}
	client, err := m.attested(ctx)
	if err != nil {
		return nil, nil, err
	}
	var unwrapper imagepull.KeyUnwrapper
	if client != nil {
		// The layers of an image share a KEK: it is fetched once, and gone after the pull.
		keys := keyprovider.NewCache(client, client)
		defer keys.Clear()
		unwrapper = &keyprovider.Unwrapper{Keys: keys}
	}
	puller, err := m.puller(ctx, client, unwrapper, store)
	if err != nil {
		return nil, nil, err
	}
	var img *imagepull.Image
	var done string
	err = m.steps.measure(pullStage, func(took *stage) error {
		img, done, err = source(ctx, m, puller, image)
		m.pulls.count(took, image)
		return err
	})
	if err == nil {
		err = m.measureImage(image, img.Manifest.String())
	}
	if err != nil {
		return nil, nil, errors.Join(err, puller.Close())
	}
	m.steps.say("image %s is %s", image, img.Manifest)
	m.steps.say("%s; admitted by %s", done, img.Admitted)
	return puller, img, nil
}

// contain runs a bundle to its end and returns an exitStatus unless that is 0.
func (m *machine) contain(ctx context.Context, what started, bundle *imagepull.Bundle, policy container.Policy) (err error) {
	runtime, err := container.New(container.Config{Root: stateDir, Log: m.log})
	if err != nil {
		return err
	}
	defer func() {
		undo, cancel := cleanup(ctx)
		defer cancel()
		err = errors.Join(err, runtime.Close(undo))
	}()

	var c *container.Container
	err = m.steps.do("create and start the container", func() error {
		c, err = runtime.Create(ctx, what.ID, container.Bundle{Dir: bundle.Dir, Spec: bundle.Spec, Policy: policy}, container.Stdio{
			Stdin: os.Stdin, Stdout: keepOpen{os.Stdout}, Stderr: keepOpen{os.Stderr},
		})
		if err != nil {
			return err
		}
		// Before it starts: what runs is in the log, whatever happens to us.
		if err := m.measureStart(what); err != nil {
			return err
		}
		return c.Start(ctx)
	})
	if err != nil {
		return err
	}
	exit, err := waitOrStop(ctx, c)
	if err != nil {
		return err
	}
	if err := waitOutput(ctx, c); err != nil {
		return err
	}
	if exit.Code != 0 {
		return exitStatus(exit.Code)
	}
	return nil
}

// cleanup is the time for what is done after a container has ended. It begins now, and not
// with the container, which may have run for days.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
}

// waitOutput waits until the output of a container that has ended is passed on.
func waitOutput(ctx context.Context, c *container.Container) error {
	limit, cancel := cleanup(ctx)
	defer cancel()
	return c.WaitOutput(limit)
}

// waitOrStop waits for the container; when ctx ends first it asks the container to
// end, and then insists.
func waitOrStop(ctx context.Context, c *container.Container) (container.Exit, error) {
	exit, err := c.Wait(ctx)
	if ctx.Err() == nil {
		return exit, err
	}
	if err := c.Signal(unix.SIGTERM, false); err != nil && !errors.Is(err, container.ErrNotRunning) {
		return container.Exit{}, err
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if exit, err = c.Wait(grace); err == nil {
		return exit, nil
	}
	if err := c.Signal(unix.SIGKILL, true); err != nil && !errors.Is(err, container.ErrNotRunning) {
		return container.Exit{}, err
	}
	return c.Wait(context.WithoutCancel(ctx))
}

// keepOpen passes output on to a file that outlives the container.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
