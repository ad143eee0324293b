// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"

	"github.com/go-json-experiment/json/jsontext"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	// maxPayload bounds what is signed. cosign writes some 250 bytes and the annotations that the signer asked for.
	maxPayload = 64 << 10
	// maxSignature bounds a signature in base64: RSA with 8192 bits has 1368 characters.
	maxSignature = 4 << 10
	// payloadType is cosign's critical.type: a signature for another purpose is not one for an image.
	payloadType = "cosign container image signature"
)

// payload is a simple signing document (containers-signature(5), "Signature payload").
type payload struct {
	digest v1.Hash
	signed reference
}

// parsePayload reads a payload of the given critical.type strictly. It is called for bytes under a good signature;
// nothing in them may be read in two ways.
func parsePayload(raw []byte, kind string) (payload, error) {
	var doc struct {
		Critical *struct {
			Type  *string `json:"type"`
			Image *struct {
				Digest *string `json:"docker-manifest-digest"`
			} `json:"image"`
			Identity *struct {
				Reference *string `json:"docker-reference"`
			} `json:"identity"`
		} `json:"critical"`
		Optional jsontext.Value `json:"optional"` // the signer's annotations: no part of the decision
	}
	if len(raw) > maxPayload {
		return payload{}, fmt.Errorf("payload of %d bytes, at most %d", len(raw), maxPayload)
	}
	if err := unmarshal(raw, &doc); err != nil {
		return payload{}, err
	}
	c := doc.Critical
	if c == nil || c.Type == nil || c.Image == nil || c.Image.Digest == nil || c.Identity == nil || c.Identity.Reference == nil {
		return payload{}, errors.New("a member of critical is missing")
	}
	if *c.Type != kind {
		return payload{}, fmt.Errorf("critical.type is %q, want %q", *c.Type, kind)
	}
	digest, err := v1.NewHash(*c.Image.Digest)
	if err != nil {
		return payload{}, fmt.Errorf("docker-manifest-digest: %w", err)
	}
	signed, err := parseReference(*c.Identity.Reference)
	if err != nil {
		return payload{}, fmt.Errorf("docker-reference: %w", err)
	}
	return payload{digest: digest, signed: signed}, nil
}
