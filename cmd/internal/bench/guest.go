// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

const (
	benchWorkload    = "bench"
	benchKeyPath     = "bench/image/kek"
	benchMeasurement = "a1" // repeated to 48 bytes
)

// guestBench is a keybroker on loopback that releases one key to a guest on a test chip.
type guestBench struct {
	dir      string
	chip     fixture.Chip
	broker   *fixture.Broker
	initdata fixture.InitData
	kek      []byte
}

func prepareGuest(ctx context.Context) (_ *guestBench, err error) {
	b := &guestBench{kek: []byte("a key of 32 bytes for benchmarks")}
	if b.dir, err = os.MkdirTemp("/dev/shm", "casemate-bench-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.chip, err = fixture.NewChip(b.path("chip")); err != nil {
		return nil, err
	}
	if b.broker, err = fixture.StartBroker(ctx, "bin/keybroker", b.path("keybroker"), b.chip.Root()); err != nil {
		return nil, err
	}
	b.initdata, err = fixture.WriteInitData(ctx, "bin/casemate-build", b.path("initdata.toml"), fixture.InitDataOptions{
		Workload: benchWorkload, KBS: b.broker.URL, Cert: b.broker.Cert, Policy: `{"default":[{"type":"reject"}]}`,
	})
	if err != nil {
		return nil, err
	}
	measurement := strings.Repeat(benchMeasurement, 48)
	if err := b.chip.Launch(measurement, b.initdata.HostData); err != nil {
		return nil, err
	}
	registration, kek := b.path("registration.toml"), b.path("kek")
	if err := fixture.Registration(registration, benchWorkload, measurement, b.initdata.Digest); err != nil {
		return nil, err
	}
	if err := os.WriteFile(kek, b.kek, 0o600); err != nil {
		return nil, err
	}
	for _, args := range [][]string{{"register", registration}, {"resource", "set", benchKeyPath, kek, "--workload", benchWorkload}} {
		if _, err := fixture.Run(ctx, "bin/keybroker", append(args, b.broker.OwnerFlags()...)...); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// serve starts the guest's program with sockets, a piece of its configuration, and waits
// for one of them.
func (b *guestBench) serve(ctx context.Context, socket, sockets string) (*fixture.Process, error) {
	config := b.path("casemate.toml")
	if err := fixture.GuestConfig(config, b.chip, b.initdata.File, "registry.invalid", b.path("store")); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return nil, err
	}
	text = append(text, sockets...)
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	ready := func(ctx context.Context) error {
		conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	return fixture.Start(ctx, ready, "bin/casemate-testsnp", "serve", "--config", config)
}

func (b *guestBench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *guestBench) close() {
	if b.broker != nil {
		b.broker.Close()
	}
	_ = os.RemoveAll(b.dir)
}
