// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"bytes"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxCredential bounds a credential file; session tokens are some KiB.
const maxCredential = 16 << 10

// credential signs requests. Its secret parts are cleared after each.
type credential struct {
	accessKeyID string
	secret      []byte
	session     []byte // a temporary credential's token; nil for none
}

func (c *credential) clear() {
	clear(c.secret)
	clear(c.session)
}

// parseCredential reads confidential-data-hub's credential.json: access_key_id,
// secret_access_key and perhaps session_token. Errors quote nothing of it.
func parseCredential(raw []byte) (*credential, error) {
	if len(raw) > maxCredential {
		return nil, errors.New("it is too large")
	}
	var file struct {
		AccessKeyID string         `json:"access_key_id"`
		Secret      jsontext.Value `json:"secret_access_key"`
		Session     jsontext.Value `json:"session_token"`
	}
	err := json.Unmarshal(raw, &file, json.RejectUnknownMembers(true))
	defer clear(file.Secret)
	defer clear(file.Session)
	if err != nil {
		return nil, errors.New("it is not a credential.json")
	}
	c := &credential{accessKeyID: file.AccessKeyID}
	if c.secret, err = textOf(file.Secret); err != nil || !printable(c.secret) {
		c.clear()
		return nil, errors.New("its secret_access_key is missing or not text")
	}
	if file.Session != nil && file.Session.Kind() != 'n' {
		if c.session, err = textOf(file.Session); err != nil || !printable(c.session) {
			c.clear()
			return nil, errors.New("its session_token is not text")
		}
	}
	if !printable([]byte(c.accessKeyID)) || bytes.ContainsAny([]byte(c.accessKeyID), "/,=") {
		c.clear()
		return nil, errors.New("its access_key_id is missing or not text")
	}
	return c, nil
}

// textOf returns the text of a JSON string, which the caller clears.
func textOf(value jsontext.Value) ([]byte, error) {
	if value.Kind() != '"' {
		return nil, errors.New("not a string")
	}
	return jsontext.AppendUnquote(make([]byte, 0, len(value)), value)
}

// printable accepts what may stand in a header: at least one byte, ASCII, no space.
func printable(text []byte) bool {
	return len(text) > 0 && !bytes.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
