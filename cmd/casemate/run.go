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
	o, rest, err := parse(args, 1, -1, func(s *flag.FlagSet) {
		s.BoolVar(&terminal, "tty", false, "give the container a terminal")
	})
	if err != nil {
		return err
	}
	image, argv := rest[0], commandLine(rest[1:])
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	if err := m.scratch.open(ctx, m); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.scratch.close()) }()
	dir, err := m.workDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	puller, img, err := m.pull(ctx, image, filepath.Join(dir, "store"))
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
	base := m.conf.Image.Store
	switch {
	case m.conf.Scratch != config.Scratch{}:
		if m.scratch.size() == 0 {
			return "", errors.New("making the image store: scratch is configured, which agent and run open; memory does not take its place")
		}
		base = scratchPoint
	case base == "":
		base = defaultStore
	}
	if err := os.MkdirAll(base, 0o700); err != nil {
		return "", fmt.Errorf("making the image store: %w", err)
	}
	return os.MkdirTemp(base, "")
}

// pull attests as far as the configuration and the image need it, and pulls.
func (m *machine) pull(ctx context.Context, image, store string) (_ *imagepull.Puller, _ *imagepull.Image, err error) {
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
	img, err := m.pullImage(ctx, m.steps, puller, image)
	if err == nil {
		err = m.measureImage(image, img.Manifest.String())
	}
	if err != nil {
		return nil, nil, errors.Join(err, puller.Close())
	}
	m.steps.say("image %s is %s", image, img.Manifest)
	m.steps.say("verified: %d layers (%d encrypted) by digest, MAC and DiffID; admitted by %s", len(img.Layers), img.Encrypted, img.Admitted)
	return puller, img, nil
}

// contain runs a bundle to its end and returns an exitStatus unless that is 0.
func (m *machine) contain(ctx context.Context, what started, bundle *imagepull.Bundle, policy container.Policy) (err error) {
	runtime, err := container.New(container.Config{Root: stateDir, Log: m.log})
	if err != nil {
		return err
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
	defer cancel()
	defer func() { err = errors.Join(err, runtime.Close(undo)) }()

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
	if err := c.WaitOutput(undo); err != nil {
		return err
	}
	if exit.Code != 0 {
		return exitStatus(exit.Code)
	}
	return nil
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
