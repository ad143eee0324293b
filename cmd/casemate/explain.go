// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/casemate/casemate/agent/kbs"
	"github.com/casemate/casemate/cmd/casemate/internal/explain"
)

// defaultTranscript is where the last handshake is written down, in memory.
const defaultTranscript = "/run/casemate/attestation.json"

// maxAuditFile caps what keybroker log printed.
const maxAuditFile = 16 << 20

// keepTranscript writes down a handshake. That it could not is no reason to fail one.
func (m *machine) keepTranscript(t kbs.Transcript) {
	m.steps.line.handshake(t)
	if m.transcript == "" {
		return
	}
	if err := writeTranscript(m.transcript, t); err != nil {
		m.log.Warn("the handshake is not written down for casemate explain", "error", err)
	}
}

// writeTranscript replaces the file in one step.
func writeTranscript(path string, t kbs.Transcript) error {
	raw, err := t.Encode()
	if err != nil {
		return err
	}
	return replacePrivate(path, raw)
}

// replacePrivate replaces a file that is for root alone in one step.
func replacePrivate(path string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-") // 0600
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	err = errors.Join(err, file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	return nil
}

func runExplain(ctx context.Context, args []string) error {
	return among(ctx, args, []verb{
		{"attestation", "[--audit FILE] …", "why the last handshake went as it did", explainAttestation},
		{"policy", "…", "why the last refused request was refused", explainPolicy},
		{"timeline", "…", "what this guest waited for since it booted", runTimeline},
	})
}

// explainAttestation says from a transcript, and from the relying party's audit log where it is
// at hand, what a handshake sent and which rule denied it. It asks nobody.
func explainAttestation(_ context.Context, args []string) error {
	path, auditFile, asJSON := defaultTranscript, "", false
	if _, err := parse(args, 0, 0, func(s *flag.FlagSet) {
		s.StringVar(&path, "transcript", path, "the transcript, a `FILE` saved from a guest")
		s.StringVar(&auditFile, "audit", "", "a `FILE` with what keybroker log --id REFERENCE --json printed")
		s.BoolVar(&asJSON, "json", false, "print JSON")
	}); err != nil {
		return err
	}
	raw, err := readCapped(path, kbs.MaxTranscript)
	if errors.Is(err, fs.ErrNotExist) && path == defaultTranscript {
		return errors.New("no handshake was made since this machine booted: " + path + " is not there")
	}
	if err != nil {
		return fmt.Errorf("reading the transcript: %w", err)
	}
	t, err := kbs.ParseTranscript(raw)
	if err != nil {
		return err
	}
	var audit []byte
	if auditFile != "" {
		if audit, err = readCapped(auditFile, maxAuditFile); err != nil {
			return fmt.Errorf("reading the audit log: %w", err)
		}
	}
	x, err := explain.New(t, audit)
	if err != nil {
		return err
	}
	if asJSON {
		return x.PrintJSON(os.Stdout)
	}
	return x.Print(os.Stdout)
}
