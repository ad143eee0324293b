// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"fmt"
	"net/http"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Secret returns one field, a string, of the entry name. annotations are
// {"field":"NAME"} and may name a version from 1 on, {"field":"NAME","version":3}: without
// one it is the newest. settings must be an empty object. The caller clears the result.
func (c *Client) Secret(ctx context.Context, name string, settings, annotations []byte) ([]byte, error) {
	var want struct {
		Field   string `json:"field"`
		Version *int64 `json:"version"`
	}
	if err := errorsOf(CheckName(name), checkEmpty("provider_settings", settings)); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(annotations, &want, json.RejectUnknownMembers(true)); err != nil || want.Field == "" {
		return nil, fmt.Errorf(`%w: annotations must be {"field":"NAME"}, with a version or without`, ErrRequest)
	}
	path := c.cfg.KV + "/data/" + name
	if want.Version != nil {
		if *want.Version < 1 {
			return nil, fmt.Errorf("%w: version %d, want 1 or more", ErrRequest, *want.Version)
		}
		path += "?version=" + strconv.FormatInt(*want.Version, 10)
	}
	data, err := c.call(ctx, http.MethodGet, path, nil)
	defer clear(data)
	if err != nil {
		return nil, err
	}
	return field(data, want.Field, want.Version)
}

// field takes one string out of an entry.
func field(data []byte, name string, version *int64) ([]byte, error) {
	var entry struct {
		Data     map[string]jsontext.Value `json:"data"`
		Metadata struct {
			Version *int64 `json:"version"`
		} `json:"metadata"`
	}
	err := json.Unmarshal(data, &entry)
	defer func() {
		for _, value := range entry.Data {
			clear(value)
		}
	}()
	if err != nil || entry.Metadata.Version == nil {
		return nil, fmt.Errorf("%w: no entry of KV version 2", ErrAnswer)
	}
	if version != nil && *version != *entry.Metadata.Version {
		return nil, fmt.Errorf("%w: version %d instead of %d", ErrAnswer, *entry.Metadata.Version, *version)
	}
	value, ok := entry.Data[name]
	if !ok {
		return nil, fmt.Errorf("%w: the entry has no field %.64q", ErrNotFound, name)
	}
	if value.Kind() != '"' {
		return nil, fmt.Errorf("%w: field %.64q is not a string", ErrAnswer, name)
	}
	secret, err := jsontext.AppendUnquote(make([]byte, 0, len(value)), value)
	if err != nil || len(secret) > MaxSecret {
		clear(secret)
		return nil, fmt.Errorf("%w: field %.64q is not a string of at most %d bytes", ErrAnswer, name, MaxSecret)
	}
	return secret, nil
}
