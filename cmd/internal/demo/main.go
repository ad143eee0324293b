// SPDX-License-Identifier: Apache-2.0

// Demo runs casemate's main job on one machine: it builds an image from a real
// Debian root filesystem, encrypts and signs it, pushes it to a real registry,
// registers it at keybroker, runs it attested, and then shows four refusals.
//
// No such machine has a TEE. The guest program is the same main built with a test
// signer in place of the SEV-SNP device; it says so when it starts. Measurement,
// initdata and HOST_DATA are bound and judged as on hardware.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// stage runs one step of the story and prints what it took.
func stage(name string, step func() error) error {
	start := time.Now()
	if err := step(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Printf("%-58s %6.2fs\n", name, time.Since(start).Seconds())
	return nil
}

func run(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("containers need root; this is uid %d", os.Geteuid())
	}
	dir, err := os.MkdirTemp("", "casemate-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	s := &stageSet{dir: dir, bin: "bin", cache: filepath.Join("build", "cache")}
	defer s.close()

	fmt.Println("This machine has no TEE: evidence is signed by a test key that keybroker is told to trust.")
	fmt.Println()
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"registry: Debian's docker-registry on loopback", s.startRegistry},
		{"image: a Debian root filesystem and one program", s.buildImage},
		{"chip: a test signer in place of the AMD processor", s.makeChip},
		{"keybroker: started, with the test root", s.startKeybroker},
		{"owner: signing key, image policy, initdata", s.writeInitData},
		{"host: launches the guest with that HOST_DATA", s.launch},
		{"keybroker register: measurement, initdata digest", s.register},
		{"casemate-build encrypt: layers encrypted, KEK at keybroker", s.encrypt},
		{"casemate-build sign", s.sign},
	} {
		if err := stage(step.name, func() error { return step.do(ctx) }); err != nil {
			return err
		}
	}
	fmt.Printf("\n$ casemate run %s\n", s.image("1"))
	if err := s.runContainer(ctx); err != nil {
		return err
	}
	fmt.Println("\nFour things the host may try:")
	for _, r := range []struct {
		name string
		try  func(context.Context) (string, error)
	}{
		{"one flipped byte in a layer", s.flippedByte},
		{"another measurement than the registered one", s.otherMeasurement},
		{"a recorded attest request posted again", s.replay},
		{"an unsigned image", s.unsigned},
	} {
		reason, err := r.try(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
		fmt.Printf("\n%s\nrefused: %s\n", r.name, reason)
	}
	return nil
}
