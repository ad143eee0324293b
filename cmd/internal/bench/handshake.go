// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"time"

	"github.com/casemate/casemate/agent/attest/snptest"
	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/agent/kbs"
)

const (
	handshakeRuns      = 21
	maxHandshakeMillis = 10
)

// timedSigner is the test chip with a watch: what hardware would take is no part of the
// figure.
type timedSigner struct {
	signer *snptest.Signer
	took   time.Duration // by one handshake at a time
}

func (*timedSigner) TEE() evidence.TEE { return evidence.SNP }

func (s *timedSigner) Evidence(_ context.Context, r evidence.ReportData) (json.RawMessage, error) {
	start := time.Now()
	defer func() { s.took += time.Since(start) }()
	e, err := s.signer.Evidence(r.Bytes64())
	if err != nil {
		return nil, err
	}
	return e.Encode()
}

// handshake measures what a guest waits for from its first packet to a token: TCP and
// TLS, challenge, key, evidence and the relying party's judgement. Each run is a client
// of its own with nothing cached.
func handshake(ctx context.Context) ([]figure, error) {
	b, err := prepareGuest(ctx)
	if err != nil {
		return nil, err
	}
	defer b.close()
	signer, err := snptest.Load(b.chip.Dir)
	if err != nil {
		return nil, err
	}
	initdata, err := os.ReadFile(b.initdata.File)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(b.broker.Cert)) {
		return nil, errors.New("reading keybroker's certificate: no PEM")
	}
	var millis []float64
	for range handshakeRuns {
		chip := &timedSigner{signer: signer}
		client, err := kbs.New(kbs.Config{URL: b.broker.URL, Roots: roots, Attester: chip, InitData: initdata})
		if err != nil {
			return nil, err
		}
		start := time.Now()
		_, err = client.Token(ctx)
		took := time.Since(start) - chip.took
		client.Close()
		if err != nil {
			return nil, err
		}
		millis = append(millis, took.Seconds()*1000)
	}
	value := median(millis)
	return []figure{{name: "handshake", value: value, unit: "ms", budget: "<=10ms", met: value <= maxHandshakeMillis}}, nil
}
