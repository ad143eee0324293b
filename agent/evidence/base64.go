// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"encoding/base64"
	"errors"
	"strings"
)

var errBase64 = errors.New("not canonical base64")

// decodeB64URL accepts exactly one spelling of each byte string: RFC 4648 section 5
// without padding, trailing bits zero, and none of the line breaks that Go's decoder
// skips. Two spellings of one key would be two keys to whoever compares text.
func decodeB64URL(s string) ([]byte, error) {
	return decodeB64(base64.RawURLEncoding, s)
}

// decodeB64Std is decodeB64URL for the padded standard alphabet (RFC 4648 section 4).
func decodeB64Std(s string) ([]byte, error) {
	return decodeB64(base64.StdEncoding, s)
}

func decodeB64(enc *base64.Encoding, s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errBase64
	}
	b, err := enc.Strict().DecodeString(s)
	if err != nil {
		// The library's text carries an offset only, but into hostile input.
		return nil, errBase64
	}
	return b, nil
}

func encodeB64URL(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func encodeB64Std(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
