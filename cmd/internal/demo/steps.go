// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// stageSet is everything that the demo has started and written.
type stageSet struct {
	dir, bin, cache string

	registry *fixture.Registry
	broker   *fixture.Broker
	recorder *recorder
	chip     fixture.Chip
	initdata fixture.InitData
}

const (
	workload = "demo"
	keyID    = "kbs:///demo/image/kek"
)

func (s *stageSet) close() {
	if s.recorder != nil {
		s.recorder.Close()
	}
	if s.broker != nil {
		s.broker.Close()
	}
	if s.registry != nil {
		s.registry.Close()
	}
}

func (s *stageSet) path(name string) string    { return filepath.Join(s.dir, name) }
func (s *stageSet) program(name string) string { return filepath.Join(s.bin, name) }
func (s *stageSet) image(tag string) string    { return s.registry.Addr + "/demo/app:" + tag }

func (s *stageSet) startRegistry(ctx context.Context) (err error) {
	s.registry, err = fixture.StartRegistry(ctx, s.path("registry"), "")
	return err
}

// script is the container's program: its output is what it sees of itself.
const script = `#!/bin/sh
. /etc/os-release
echo "hello from $PRETTY_NAME"
echo "  I am process $$ of $(ls -d /proc/[0-9]* | wc -l), user $(id -un), in $(pwd)"
echo "  my root is $(grep ' / ' /proc/mounts | cut -d' ' -f3), my arguments are: $*"
`

func (s *stageSet) buildImage(ctx context.Context) error {
	debian, err := fixture.DebianTar(ctx, s.cache)
	if err != nil {
		return err
	}
	app := s.path("app")
	if err := os.MkdirAll(app, 0o755); err != nil { //nolint:gosec // goes into the image as is
		return err
	}
	if err := os.WriteFile(filepath.Join(app, "hello"), []byte(script), 0o755); err != nil { //nolint:gosec // a program
		return err
	}
	if _, err := fixture.Run(ctx, "tar", "-C", s.dir, "--owner=0", "--group=0", "-cf", s.path("app.tar"), "app"); err != nil {
		return err
	}
	return fixture.WriteImage(s.path("plain"), fixture.Image{
		Layers: []string{debian, s.path("app.tar")},
		Config: v1.Config{Entrypoint: []string{"/app/hello"}, Env: []string{"PATH=/usr/bin:/bin"}, WorkingDir: "/app"},
	})
}

// makeChip makes the signer that stands where the AMD processor would, with keys of
// its own.
func (s *stageSet) makeChip(context.Context) (err error) {
	s.chip, err = fixture.NewChip(s.path("chip"))
	return err
}

func (s *stageSet) startKeybroker(ctx context.Context) (err error) {
	if s.broker, err = fixture.StartBroker(ctx, s.program("keybroker"), s.path("keybroker"), s.chip.Root()); err != nil {
		return err
	}
	// The guest is told the recorder's address, which passes everything on.
	s.recorder, err = startRecorder(s.broker)
	return err
}

func (s *stageSet) writeInitData(ctx context.Context) error {
	if _, err := fixture.Run(ctx, s.program("casemate-build"), "keygen", "--out", s.path("owner")); err != nil {
		return err
	}
	policy, err := fixture.SignedBy(s.registry.Addr, s.path("owner.pub"))
	if err != nil {
		return err
	}
	s.initdata, err = fixture.WriteInitData(ctx, s.program("casemate-build"), s.path("initdata.toml"), fixture.InitDataOptions{
		Workload: workload, KBS: s.recorder.URL(), Cert: s.broker.Cert, Policy: policy,
	})
	return err
}

// launch gives the test chip what hardware would have measured and been given. The
// stand-in for the launch digest is the SHA-384 of the guest program.
func (s *stageSet) launch(context.Context) error {
	measurement, err := s.launchDigest()
	if err != nil {
		return err
	}
	if err := s.chip.Launch(measurement, s.initdata.HostData); err != nil {
		return err
	}
	return fixture.GuestConfig(s.path("casemate.toml"), s.chip, s.initdata.File, s.registry.Addr, s.path("store"))
}

func (s *stageSet) launchDigest() (string, error) {
	file, err := os.Open(s.program("casemate-testsnp"))
	if err != nil {
		return "", err
	}
	defer file.Close()
	h := sha512.New384()
	if _, err := io.Copy(h, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *stageSet) register(ctx context.Context) error {
	measurement, err := s.launchDigest()
	if err != nil {
		return err
	}
	file := s.path("workload.toml")
	if err := fixture.Registration(file, workload, measurement, s.initdata.Digest); err != nil {
		return err
	}
	_, err = fixture.Run(ctx, s.program("keybroker"), append([]string{"register", file}, s.broker.OwnerFlags()...)...)
	return err
}

func (s *stageSet) encrypt(ctx context.Context) error { return s.push(ctx, "1") }

// push encrypts the image into the registry under a tag, with the one KEK.
func (s *stageSet) push(ctx context.Context, tag string) error {
	args := []string{
		"encrypt", "oci:" + s.path("plain"), "docker://" + s.image(tag), "--key-id", keyID,
		"--insecure-registry", s.registry.Addr,
	}
	kek := s.path("kek")
	if _, err := os.Stat(kek); err == nil {
		args = append(args, "--kek-file", kek)
	} else {
		args = append(args, "--kek-out", kek, "--workload", workload)
		args = append(args, s.broker.OwnerFlags()...)
	}
	_, err := fixture.Run(ctx, s.program("casemate-build"), args...)
	return err
}

func (s *stageSet) sign(ctx context.Context) error {
	_, err := fixture.Run(ctx, s.program("casemate-build"), "sign", "docker://"+s.image("1"),
		"--key", s.path("owner.key"), "--insecure-registry", s.registry.Addr)
	return err
}

func (s *stageSet) runContainer(ctx context.Context) error {
	return fixture.RunVisible(ctx, s.program("casemate-testsnp"), "run", "--config", s.path("casemate.toml"), s.image("1"), "--", "one", "two")
}
