// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/casemate/casemate/cmd/internal/fixture"
)

// refusedRun runs an image that must not start and returns the guest's reason.
func (s *stageSet) refusedRun(ctx context.Context, image string) (string, error) {
	cmd := exec.CommandContext(ctx, s.program("casemate-testsnp"), "run", "--quiet", "--config", s.path("casemate.toml"), image)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if err == nil || stdout.Len() > 0 {
		return "", fmt.Errorf("the container ran: %s", stdout.Bytes())
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return "", err
	}
	entries, err := os.ReadDir(s.path("store"))
	if err != nil || len(entries) > 0 {
		return "", fmt.Errorf("the store is not empty: %v, %w", entries, err)
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "casemate run: "), nil
}

// flippedByte changes one byte of the first layer where the registry keeps it, and
// puts it back.
func (s *stageSet) flippedByte(ctx context.Context) (string, error) {
	out, err := fixture.Run(ctx, "skopeo", "inspect", "--raw", "--tls-verify=false", "docker://"+s.image("1"))
	if err != nil {
		return "", err
	}
	var manifest struct {
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(out, &manifest); err != nil || len(manifest.Layers) == 0 {
		return "", fmt.Errorf("reading the manifest: %w", err)
	}
	file := s.registry.Blob(strings.TrimPrefix(manifest.Layers[0].Digest, "sha256:"))
	if err := flip(file); err != nil {
		return "", err
	}
	reason, err := s.refusedRun(ctx, s.image("1"))
	return reason, errors.Join(err, flip(file))
}

func flip(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	const offset = 1 << 20
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, offset); err != nil {
		return err
	}
	b[0] ^= 1
	_, err = file.WriteAt(b, offset)
	return err
}

// otherMeasurement launches a guest that was changed by one bit. The guest learns
// that it was refused; the owner's audit says why.
func (s *stageSet) otherMeasurement(ctx context.Context) (string, error) {
	measurement, err := s.launchDigest()
	if err != nil {
		return "", err
	}
	if err := s.chip.Launch(strings.Repeat("00", 8)+measurement[16:], s.initdata.HostData); err != nil {
		return "", err
	}
	reason, err := s.refusedRun(ctx, s.image("1"))
	if err != nil {
		return "", err
	}
	audit, err := s.broker.LastDenial(ctx, s.program("keybroker"))
	if err != nil {
		return "", err
	}
	return reason + "\nand the owner reads, in keybroker log:\n  " + strings.ReplaceAll(audit, "\n", "\n  "), s.launch(ctx)
}

// replay posts the last attest request that was taken once more.
func (s *stageSet) replay(ctx context.Context) (string, error) {
	if out, err := fixture.Run(ctx, s.program("casemate-testsnp"), "token", "--quiet", "--config", s.path("casemate.toml")); err != nil || len(out) == 0 {
		return "", fmt.Errorf("attesting once for the recorder: %w", err)
	}
	return s.recorder.postAgain(ctx)
}

// unsigned pushes the same image, encrypted for the same key, without a signature.
// Encryption is random, so its digest is another one.
func (s *stageSet) unsigned(ctx context.Context) (string, error) {
	if err := s.push(ctx, "unsigned"); err != nil {
		return "", err
	}
	return s.refusedRun(ctx, s.image("unsigned"))
}
