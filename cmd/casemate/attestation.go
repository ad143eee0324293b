// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
)

// maxWorkloadData caps what evidence can be asked for; it is hashed, not stored.
const maxWorkloadData = 1 << 20

// attested returns a client that holds a token, or nil where no KBS is configured.
func (m *machine) attested(ctx context.Context) (*kbs.Client, error) {
	if m.conf.KBS.URL == "" {
		return nil, nil
	}
	client, err := m.relyingParty()
	if err != nil {
		return nil, err
	}
	err = m.steps.do("attest to the relying party", func() error {
		_, err := client.Token(ctx)
		return err
	})
	return client, err
}

// runEvidence prints evidence bound to data of the caller's choice, in the domain of
// workloads: no relying party takes it for the guest's own handshake.
func runEvidence(ctx context.Context, args []string) error {
	var file string
	var devices bool
	o, _, err := parseGuest(args, 0, 0, func(s *flag.FlagSet) {
		s.StringVar(&file, "data", "", "the file whose content the evidence is bound to; - is standard input")
		s.BoolVar(&devices, "devices", false, "the evidence of the devices beside the TEE instead")
	})
	if err != nil {
		return err
	}
	var data []byte
	switch file {
	case "":
	case "-":
		data, err = readAll(os.Stdin, maxWorkloadData)
	default:
		data, err = readCapped(file, maxWorkloadData)
	}
	if err != nil {
		return fmt.Errorf("reading the data to bind: %w", err)
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	out, err := m.workloadEvidence(ctx, data, devices)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "%s\n", out)
	return err
}

// workloadEvidence is that of the TEE, or a JSON object with that of each device.
func (m *machine) workloadEvidence(ctx context.Context, data []byte, devices bool) ([]byte, error) {
	bound := evidence.WorkloadReportData(data)
	if !devices {
		return m.attester.Evidence(ctx, bound)
	}
	text, err := evidence.GatherAdditional(ctx, m.devices, bound)
	if err == nil && text == "" {
		err = errors.New("no devices are configured")
	}
	return []byte(text), err
}

// runToken prints the relying party's attestation token, a JWT. The TEE key that
// secrets are encrypted to is not in it and stays in this process.
func runToken(ctx context.Context, args []string) error {
	o, _, err := parseGuest(args, 0, 0, nil)
	if err != nil {
		return err
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	client, err := m.relyingParty()
	if err != nil {
		return err
	}
	token, err := client.Token(ctx)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(os.Stdout, "%s\n", token)
	return err
}

// runGet writes one secret, raw, to standard output.
func runGet(ctx context.Context, args []string) error {
	o, rest, err := parseGuest(args, 1, 1, nil)
	if err != nil {
		return err
	}
	m, err := openGuest(ctx, o)
	if err != nil {
		return err
	}
	client, err := m.relyingParty()
	if err != nil {
		return err
	}
	secret, err := client.Key(ctx, rest[0])
	if err != nil {
		return err
	}
	defer clear(secret)
	_, err = os.Stdout.Write(secret)
	return err
}
