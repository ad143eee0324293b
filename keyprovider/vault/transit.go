// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// keyBytes is the data key of an envelope, AES-256.
const keyBytes = 32

// maxWrapped bounds "vault:v1:" and base64 of a wrapped key with its nonce and tag.
const maxWrapped = 4 << 10

// wrappedPrefix starts what transit writes.
const wrappedPrefix = "vault:v"

// transitAnswer is the data of decrypt and datakey.
type transitAnswer struct {
	Plaintext  []byte `json:"plaintext"`
	Ciphertext string `json:"ciphertext"`
}

// Decrypt returns the data key that transit wrapped under the key keyID ("vault:v1:…");
// settings and annotations must be empty objects. The caller clears the result.
func (c *Client) Decrypt(ctx context.Context, keyID string, encrypted, settings, annotations []byte) ([]byte, error) {
	if err := errorsOf(CheckName(keyID), checkEmpty("provider_settings", settings), checkEmpty("annotations", annotations)); err != nil {
		return nil, err
	}
	if err := checkWrapped(encrypted); err != nil {
		return nil, err
	}
	body, err := jsontext.AppendQuote([]byte(`{"ciphertext":`), encrypted)
	if err != nil {
		return nil, fmt.Errorf("%w: the wrapped key is not text", ErrRequest)
	}
	answer, err := c.transit(ctx, "decrypt/"+keyID, append(body, '}'))
	if err != nil {
		return nil, err
	}
	return answer.Plaintext, nil
}

// DataKey makes a data key of 32 bytes and returns it with its form wrapped under the
// key keyID. It is an owner's call. The caller clears plain.
func (c *Client) DataKey(ctx context.Context, keyID string) (plain, wrapped []byte, err error) {
	if err := CheckName(keyID); err != nil {
		return nil, nil, err
	}
	answer, err := c.transit(ctx, "datakey/plaintext/"+keyID, []byte(`{"bits":256}`))
	if err != nil {
		return nil, nil, err
	}
	if err := checkWrapped([]byte(answer.Ciphertext)); err != nil || len(answer.Plaintext) != keyBytes {
		clear(answer.Plaintext)
		return nil, nil, fmt.Errorf("%w: no data key of %d bytes with its wrapped form", ErrAnswer, keyBytes)
	}
	return answer.Plaintext, []byte(answer.Ciphertext), nil
}

func (c *Client) transit(ctx context.Context, path string, body []byte) (transitAnswer, error) {
	var answer transitAnswer
	data, err := c.call(ctx, http.MethodPost, c.cfg.Transit+"/"+path, body)
	defer clear(data)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil || len(answer.Plaintext) == 0 {
		clear(answer.Plaintext)
		return transitAnswer{}, fmt.Errorf("%w: no plaintext in base64", ErrAnswer)
	}
	return answer, nil
}

// checkWrapped takes "vault:v", a version, ":" and base64.
func checkWrapped(text []byte) error {
	parts := bytes.Split(text, []byte(":"))
	if len(text) > maxWrapped || len(parts) != 3 || !bytes.HasPrefix(text, []byte(wrappedPrefix)) || len(parts[1]) < 2 ||
		slices.ContainsFunc(parts[1][1:], func(b byte) bool { return b < '0' || b > '9' }) {
		return fmt.Errorf("%w: a wrapped key of %d bytes, want vault:vN:BASE64 of at most %d", ErrRequest, len(text), maxWrapped)
	}
	if _, err := base64.StdEncoding.Strict().DecodeString(string(parts[2])); err != nil || len(parts[2]) == 0 {
		return fmt.Errorf("%w: a wrapped key that is not base64", ErrRequest)
	}
	return nil
}

// checkEmpty takes an object without members: what is configured stays as it is.
func checkEmpty(what string, object []byte) error {
	var members map[string]jsontext.Value
	if err := json.Unmarshal(object, &members); err != nil || members == nil || len(members) > 0 {
		return fmt.Errorf("%w: %s must be {}", ErrRequest, what)
	}
	return nil
}

func errorsOf(list ...error) error {
	for _, err := range list {
		if err != nil {
			return err
		}
	}
	return nil
}
