// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/agent/evidence"
)

// asDomain begins the runtime data of evidence for an attestation service. A handshake
// with a KBS hashes JSON, which starts with '{': no service that is shown this evidence can
// go through a handshake with it, nor with its token, which names no key.
const asDomain = "casemate attestation service v1\x00"

const (
	asFresh = 32 // random bytes behind asDomain
	// maxASToken is above a verbose EAR of several devices.
	maxASToken = 256 << 10
)

// AttestationService earns tokens of type coco_as: what CoCo's attestation service says of
// this guest, a JWT bound to no key. Guest-components sends evidence bound to nothing;
// here it is bound to fresh bytes, which are sent along. It is safe for concurrent use.
type AttestationService struct{ client *Client }

// NewAttestationService checks the configuration; it does not connect. URL is the service's
// address without /attestation.
func NewAttestationService(cfg Config) (*AttestationService, error) {
	client, err := New(cfg)
	if err != nil {
		return nil, fmt.Errorf("attestation service: %w", err)
	}
	client.base = &url.URL{Scheme: client.base.Scheme, Host: client.base.Host, Path: strings.TrimSuffix(client.base.Path, "/kbs/v0")}
	return &AttestationService{client}, nil
}

// Close drops idle connections.
func (s *AttestationService) Close() { s.client.Close() }

type asRuntimeData struct {
	Raw string `json:"raw"`
}

type asInitData struct {
	TOML string `json:"init_data_toml"`
}

type asRequest struct {
	TEE         evidence.TEE           `json:"tee"`
	Evidence    string                 `json:"evidence"`
	RuntimeData asRuntimeData          `json:"runtime_data"`
	Hash        evidence.HashAlgorithm `json:"runtime_data_hash_algorithm"`
	InitData    *asInitData            `json:"init_data,omitzero"`
}

// Token returns a new token. The caller clears it.
func (s *AttestationService) Token(ctx context.Context) ([]byte, error) {
	var token []byte
	err := s.client.retry(ctx, func() (err error) {
		token, err = s.attempt(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("fetching a token of the attestation service: %w", err)
	}
	return token, nil
}

func (s *AttestationService) attempt(ctx context.Context) ([]byte, error) {
	cfg := s.client.cfg
	raw := append([]byte(asDomain), make([]byte, asFresh)...)
	rand.Read(raw[len(asDomain):]) // never returns an error since Go 1.24
	sum, err := evidence.SHA384.Sum(raw)
	if err != nil {
		return nil, err
	}
	data, err := evidence.RawReportData(sum)
	if err != nil {
		return nil, err
	}
	proof, err := cfg.Attester.Evidence(ctx, data)
	if err != nil {
		return nil, err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	ask := asRequest{TEE: cfg.Attester.TEE(), Evidence: b64(proof), RuntimeData: asRuntimeData{b64(raw)}, Hash: evidence.SHA384}
	if cfg.InitData != nil {
		ask.InitData = &asInitData{string(cfg.InitData)}
	}
	body, err := json.Marshal(map[string]any{"verification_requests": []asRequest{ask}, "policy_ids": []string{}}, json.Deterministic(true))
	if err != nil {
		return nil, err
	}
	token, err := s.client.roundTrip(ctx, newJar(s.client.base), http.MethodPost, "attestation", request{body: body, limit: maxASToken})
	if err != nil {
		return nil, err
	}
	token = bytes.TrimSpace(token)
	if err := checkJWT(token); err != nil {
		return nil, violation(err)
	}
	return token, nil
}

// checkJWT wants three parts in base64url. Who made it and when it ends is for whoever is
// shown it.
func checkJWT(token []byte) error {
	parts := bytes.Split(token, []byte("."))
	if len(parts) != 3 {
		return fmt.Errorf("token: %d parts, want 3", len(parts))
	}
	for _, part := range parts {
		if _, err := base64.RawURLEncoding.Strict().DecodeString(string(part)); err != nil || len(part) == 0 {
			return errors.New("token: a part is not base64url")
		}
	}
	return nil
}
