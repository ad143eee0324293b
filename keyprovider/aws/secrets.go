// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const serviceSecrets = "secretsmanager"

// Secret returns the secret name, an id or ARN: its text, or where it has none its bytes.
// settings are {"region":"REGION"} of the configuration; annotations may name a version,
// {"version_id":"ID"}, or its label, {"version_stage":"LABEL"}. The caller clears the
// result.
func (c *Client) Secret(ctx context.Context, name string, settings, annotations []byte) ([]byte, error) {
	if err := c.check(name, settings); err != nil {
		return nil, err
	}
	var want struct {
		VersionID    string `json:"version_id"`
		VersionStage string `json:"version_stage"`
	}
	if err := json.Unmarshal(annotations, &want, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("%w: annotations may hold version_id and version_stage", ErrRequest)
	}
	in := map[string]string{"SecretId": name}
	for member, value := range map[string]string{"VersionId": want.VersionID, "VersionStage": want.VersionStage} {
		if value != "" {
			in[member] = value
		}
	}
	body, err := json.Marshal(in, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("%w: its version is not text", ErrRequest)
	}
	raw, err := c.call(ctx, serviceSecrets, c.cfg.Secrets, "secretsmanager.GetSecretValue", body)
	defer clear(raw)
	if err != nil {
		return nil, err
	}
	return secretOf(raw, want.VersionID)
}

// secretOf takes the secret out of an answer, which must be of the version asked for.
func secretOf(raw []byte, version string) ([]byte, error) {
	var answer struct {
		Text      jsontext.Value `json:"SecretString"`
		Bytes     jsontext.Value `json:"SecretBinary"`
		VersionID string         `json:"VersionId"`
	}
	err := json.Unmarshal(raw, &answer)
	defer clear(answer.Text)
	defer clear(answer.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: no JSON", ErrAnswer)
	}
	if version != "" && answer.VersionID != version {
		return nil, fmt.Errorf("%w: another version than asked for", ErrAnswer)
	}
	var secret []byte
	if answer.Text != nil {
		secret, err = textOf(answer.Text)
	} else {
		var encoded []byte
		if encoded, err = textOf(answer.Bytes); err == nil {
			secret, err = base64.StdEncoding.Strict().AppendDecode(nil, encoded)
		}
		clear(encoded)
	}
	if err != nil || len(secret) == 0 || len(secret) > MaxSecret {
		clear(secret)
		return nil, fmt.Errorf("%w: no secret of 1 to %d bytes", ErrAnswer, MaxSecret)
	}
	return secret, nil
}
