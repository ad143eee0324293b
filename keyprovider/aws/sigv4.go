// SPDX-License-Identifier: Apache-2.0

package aws

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strings"
	"time"
)

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigEnd       = "aws4_request"
	sigTime      = "20060102T150405Z"
	sigDate      = "20060102"
)

// header is one that is signed: a lower-case name, a value without space at its ends.
type header struct{ name, value string }

// scope is what a signature is good for.
type scope struct {
	at              time.Time
	region, service string
}

func (s scope) String() string {
	return strings.Join([]string{s.at.UTC().Format(sigDate), s.region, s.service, sigEnd}, "/")
}

// authorize returns the Authorization header of a request for "/" without a query, as
// both services take them. headers are sorted by name and hold host and x-amz-date, which
// is the scope's time. The signature covers all of them and the body.
func authorize(c *credential, s scope, method string, headers []header, body []byte) string {
	var names []string
	var lines strings.Builder
	for _, h := range headers {
		names = append(names, h.name)
		lines.WriteString(h.name + ":" + h.value + "\n")
	}
	signed := strings.Join(names, ";")
	canonical := strings.Join([]string{method, "/", "", lines.String(), signed, hexSum(body)}, "\n")
	text := strings.Join([]string{sigAlgorithm, s.at.UTC().Format(sigTime), s.String(), hexSum([]byte(canonical))}, "\n")
	key := signingKey(c.secret, s)
	defer clear(key)
	return sigAlgorithm + " Credential=" + c.accessKeyID + "/" + s.String() + ", SignedHeaders=" + signed +
		", Signature=" + hex.EncodeToString(mac(key, text))
}

// signingKey is good for one day, region and service. The caller clears it.
func signingKey(secret []byte, s scope) []byte {
	key := append([]byte("AWS4"), secret...)
	for _, part := range []string{s.at.UTC().Format(sigDate), s.region, s.service, sigEnd} {
		next := mac(key, part)
		clear(key)
		key = next
	}
	return key
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
