// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
)

const (
	serviceKMS = "kms"
	// keyBytes is the data key of an envelope, AES-256.
	keyBytes = 32
	// maxCiphertext is KMS' own bound.
	maxCiphertext = 6144
	// maxName bounds the id of a key or a secret.
	maxName = 512
)

// EncryptionContext is what KMS binds a ciphertext to; every pair must be given again.
type EncryptionContext map[string]string

type kmsAnswer struct {
	Plaintext      []byte `json:"Plaintext"`
	CiphertextBlob []byte `json:"CiphertextBlob"`
}

// Decrypt returns the data key that KMS wrapped under the key keyID, an id, ARN or alias.
// settings are {"region":"REGION"} of the configuration, annotations {} or
// {"encryption_context":{…}}. The caller clears the result.
func (c *Client) Decrypt(ctx context.Context, keyID string, encrypted, settings, annotations []byte) ([]byte, error) {
	if err := c.check(keyID, settings); err != nil {
		return nil, err
	}
	if len(encrypted) == 0 || len(encrypted) > maxCiphertext {
		return nil, fmt.Errorf("%w: a wrapped key of %d bytes, want 1 to %d", ErrRequest, len(encrypted), maxCiphertext)
	}
	var a struct {
		EncryptionContext EncryptionContext `json:"encryption_context"`
	}
	if err := json.Unmarshal(annotations, &a, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf(`%w: annotations must be {} or {"encryption_context":{…}}`, ErrRequest)
	}
	answer, err := c.kms(ctx, "Decrypt", map[string]any{"KeyId": keyID, "CiphertextBlob": encrypted}, a.EncryptionContext)
	if err != nil {
		return nil, err
	}
	return answer.Plaintext, nil
}

// DataKey makes a data key of 32 bytes and returns it with its form wrapped under the
// key keyID. It is an owner's call. The caller clears plain.
func (c *Client) DataKey(ctx context.Context, keyID string, bound EncryptionContext) (plain, wrapped []byte, err error) {
	if err := CheckName(keyID); err != nil {
		return nil, nil, err
	}
	answer, err := c.kms(ctx, "GenerateDataKey", map[string]any{"KeyId": keyID, "KeySpec": "AES_256"}, bound)
	if err != nil {
		return nil, nil, err
	}
	if n := len(answer.CiphertextBlob); n == 0 || n > maxCiphertext || len(answer.Plaintext) != keyBytes {
		clear(answer.Plaintext)
		return nil, nil, fmt.Errorf("%w: no data key of %d bytes with its wrapped form", ErrAnswer, keyBytes)
	}
	return answer.Plaintext, answer.CiphertextBlob, nil
}

func (c *Client) kms(ctx context.Context, action string, in map[string]any, bound EncryptionContext) (kmsAnswer, error) {
	var answer kmsAnswer
	if len(bound) > 0 {
		in["EncryptionContext"] = bound
	}
	body, err := json.Marshal(in, json.Deterministic(true))
	if err != nil {
		return answer, fmt.Errorf("%w: the encryption context is not text", ErrRequest)
	}
	raw, err := c.call(ctx, serviceKMS, c.cfg.KMS, "TrentService."+action, body)
	defer clear(raw)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(raw, &answer); err != nil || len(answer.Plaintext) == 0 {
		clear(answer.Plaintext)
		return kmsAnswer{}, fmt.Errorf("%w: no plaintext in base64", ErrAnswer)
	}
	return answer, nil
}

// check takes a name and settings that say nothing new.
func (c *Client) check(name string, settings []byte) error {
	if err := CheckName(name); err != nil {
		return err
	}
	var s struct {
		Region string `json:"region"`
	}
	if err := json.Unmarshal(settings, &s, json.RejectUnknownMembers(true)); err != nil || s.Region != c.cfg.Region {
		return fmt.Errorf(`%w: provider_settings must be {"region":%q}`, ErrRequest, c.cfg.Region)
	}
	return nil
}

// CheckName takes the characters of ids, names and ARNs of both services.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("/_+=.@:-", r)
	}) {
		return fmt.Errorf("%w: name %.128q, want 1 to %d letters, digits and /_+=.@:-", ErrRequest, name, maxName)
	}
	return nil
}
