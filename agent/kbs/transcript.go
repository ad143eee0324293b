// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/casemate/casemate/agent/evidence"
)

// MaxTranscript bounds an encoded Transcript, in bytes.
const MaxTranscript = 2*evidence.MaxAttestationSize + evidence.MaxTokenSize

// Transcript is one handshake as it went, for whoever asks why. Nothing in it is secret:
// what was sent is what the host saw go by, the nonce is used up, of the token only the
// claims are kept, and the private key and the session's cookie are not in it.
type Transcript struct {
	// KBS is the broker's address, Began the time by the guest's clock, which is the
	// host's to set, Micros how long it took in microseconds.
	KBS    string       `json:"kbs"`
	Began  time.Time    `json:"began"`
	Micros int64        `json:"took_us"`
	TEE    evidence.TEE `json:"tee"`
	// Hash is what binds nonce and key into the evidence; empty without a challenge.
	Hash evidence.HashAlgorithm `json:"hash,omitempty"`
	// Reference is keybroker's id of the handshake, which its audit log has as well; "" with
	// other brokers.
	Reference string `json:"reference,omitempty"`
	// Sent is the attestation as it was sent (evidence.Attestation), nil when the
	// handshake did not come that far.
	Sent jsontext.Value `json:"sent,omitempty"`
	// Claims are the token's; nil when there is none.
	Claims jsontext.Value `json:"claims,omitempty"`
	// Status, Variant and Detail are a refusal in the broker's words; 0 when it did not
	// refuse. Error is why the handshake failed, "" when it did not.
	Status  int    `json:"status,omitzero"`
	Variant string `json:"variant,omitempty"`
	Detail  string `json:"detail,omitempty"`
	Error   string `json:"error,omitempty"`
}

// Encode writes it as one JSON document.
func (t Transcript) Encode() ([]byte, error) {
	raw, err := json.Marshal(t)
	if err != nil {
		return nil, fmt.Errorf("encoding the handshake's transcript: %w", err)
	}
	return raw, nil
}

// ParseTranscript reads what Encode wrote.
func ParseTranscript(raw []byte) (Transcript, error) {
	var t Transcript
	if len(raw) > MaxTranscript {
		return t, fmt.Errorf("reading a handshake's transcript: %d bytes, want at most %d", len(raw), MaxTranscript)
	}
	if err := json.Unmarshal(raw, &t, json.RejectUnknownMembers(true)); err != nil {
		return t, fmt.Errorf("reading a handshake's transcript: %w", err)
	}
	return t, nil
}

// begin starts the transcript of one attempt.
func (c *Client) begin() *Transcript {
	return &Transcript{KBS: c.base.Scheme + "://" + c.base.Host, Began: time.Now().UTC(), TEE: c.cfg.Attester.TEE()}
}

// finish hands the transcript of an attempt on.
func (c *Client) finish(t *Transcript, s *session, err error) {
	if c.cfg.Transcript == nil {
		return
	}
	t.Micros = time.Since(t.Began).Microseconds()
	t.Began = t.Began.Round(0)
	if err != nil {
		t.Error = err.Error()
	} else if parts := bytes.Split(s.token, []byte(".")); len(parts) == 3 {
		// The signature, without which the token opens nothing, stays out.
		if claims, err := base64.RawURLEncoding.DecodeString(string(parts[1])); err == nil && jsontext.Value(claims).IsValid() {
			t.Claims = claims
		}
	}
	if status, ok := errors.AsType[*StatusError](err); ok && status.Status != http.StatusOK {
		t.Status, t.Variant, t.Detail = status.Status, status.Info.Variant, status.Info.Detail
	}
	c.cfg.Transcript(*t)
}
