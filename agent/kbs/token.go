// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"bytes"
	"encoding/base64"
	"errors"
	"time"

	"github.com/go-json-experiment/json"
)

const (
	// tokenLeeway allows the clocks of broker and attestation service to differ.
	tokenLeeway = time.Minute

	// maxTokenLife bounds how long a session is kept whatever the token says.
	maxTokenLife = 24 * time.Hour

	// tokenMargin is how long before its end a token is no longer handed out.
	tokenMargin = 30 * time.Second
)

// claims are the registered times of RFC 7519 section 4.1, in seconds.
type claims struct {
	Expires   *int64 `json:"exp"`
	NotBefore *int64 `json:"nbf"`
	IssuedAt  *int64 `json:"iat"`
}

// parseClaims reads a token that has been parsed as a JWT.
func parseClaims(jwt []byte) (c claims, err error) {
	parts := bytes.Split(jwt, []byte("."))
	payload, err := base64.RawURLEncoding.DecodeString(string(parts[1]))
	if err != nil {
		return claims{}, errors.New("token: claims are not base64url")
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return claims{}, errors.New("token: malformed claims")
	}
	return c, nil
}

// lastIssue bounds times of issue that are believed, the end of the year 9999.
const lastIssue = 253402300799

// tokenIssued returns when the broker issued a token, the zero time where it does not say.
func tokenIssued(jwt []byte) time.Time {
	c, err := parseClaims(jwt)
	if err != nil || c.IssuedAt == nil || *c.IssuedAt <= 0 || *c.IssuedAt > lastIssue {
		return time.Time{}
	}
	return time.Unix(*c.IssuedAt, 0)
}

// tokenLife returns how long a token that was just issued may be used. The guest's
// clock is host input, so the times are compared with date, the broker's own clock in
// the same answer, or when it sent none with the time of issue.
func tokenLife(jwt []byte, date time.Time) (time.Duration, error) {
	c, err := parseClaims(jwt)
	if err != nil {
		return 0, err
	}
	if c.Expires == nil {
		return 0, errors.New("token: no expiry")
	}
	switch {
	case !date.IsZero():
	case c.IssuedAt != nil:
		date = time.Unix(*c.IssuedAt, 0)
	default:
		return 0, errors.New("token: neither a Date in the answer nor a time of issue to compare its expiry with")
	}
	// Compared as numbers: converted to times, hostile extremes would wrap around.
	now := date.Unix()
	if c.NotBefore != nil && *c.NotBefore > now+int64(tokenLeeway/time.Second) {
		return 0, errors.New("token: not valid yet")
	}
	if *c.Expires <= now {
		return 0, errors.New("token: expired by the KBS's own clock")
	}
	life := maxTokenLife
	if *c.Expires < now+int64(maxTokenLife/time.Second) {
		life = time.Duration(*c.Expires-now) * time.Second
	}
	return life - min(tokenMargin, life/4), nil
}
