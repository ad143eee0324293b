// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/aes"
	"errors"
	"strings"

	"github.com/go-json-experiment/json"
)

const (
	layerKeyBytes   = 32
	sha256HexDigits = 64
)

// errOptions says nothing about the bytes it refuses: they may be a key.
var errOptions = errors.New("the data are no layer options")

// checkOptions reports whether plbco is exactly what ocicrypt writes for
// AES_256_CTR_HMAC_SHA256: a 32-byte symkey, a sha256 digest and a 16-byte
// nonce, nothing missing and nothing else. It stands in for the tag that
// A256CTR lacks as far as a format can, and it keeps the wrap service from
// wrapping arbitrary data.
func checkOptions(plbco []byte) error {
	var o struct {
		SymmetricKey  []byte            `json:"symkey"`
		Digest        string            `json:"digest"`
		CipherOptions map[string][]byte `json:"cipheroptions"`
	}
	defer func() { clear(o.SymmetricKey) }()
	err := json.Unmarshal(plbco, &o, json.RejectUnknownMembers(true))
	if err != nil {
		return errOptions
	}
	hex, ok := strings.CutPrefix(o.Digest, "sha256:")
	if !ok || len(hex) != sha256HexDigits || strings.Trim(hex, "0123456789abcdef") != "" {
		return errOptions
	}
	nonce, ok := o.CipherOptions["nonce"]
	if !ok || len(o.CipherOptions) != 1 || len(nonce) != aes.BlockSize || len(o.SymmetricKey) != layerKeyBytes {
		return errOptions
	}
	return nil
}
