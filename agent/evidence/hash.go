// SPDX-License-Identifier: Apache-2.0

package evidence

import (
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"strings"
)

// HashAlgorithm names the hash that binds runtime data into report data, and the
// one that an initdata document asks for. The zero value is not an algorithm.
type HashAlgorithm string

const (
	SHA256 HashAlgorithm = "sha256"
	SHA384 HashAlgorithm = "sha384"
	SHA512 HashAlgorithm = "sha512"
)

// DefaultHash binds runtime data when the challenge selects nothing.
const DefaultHash = SHA384

// SupportedHashes returns what a guest offers in its Request, in wire order.
func SupportedHashes() []HashAlgorithm {
	return []HashAlgorithm{SHA256, SHA384, SHA512}
}

// ParseHashAlgorithm accepts exactly sha256, sha384 and sha512.
func ParseHashAlgorithm(name string) (HashAlgorithm, error) {
	switch h := HashAlgorithm(name); h {
	case SHA256, SHA384, SHA512:
		return h, nil
	}
	return "", fmt.Errorf("unsupported hash algorithm %s", quote(name))
}

// parseSelectedHash is ParseHashAlgorithm for the challenge, where Trustee's client
// lower-cases the name before it looks it up.
func parseSelectedHash(name string) (HashAlgorithm, error) {
	return ParseHashAlgorithm(strings.ToLower(name))
}

// Size returns the digest length in bytes, 0 when h is not an algorithm.
func (h HashAlgorithm) Size() int {
	switch h {
	case SHA256:
		return sha256.Size
	case SHA384:
		return sha512.Size384
	case SHA512:
		return sha512.Size
	}
	return 0
}

// Sum returns the digest of data. It errors when h is not an algorithm.
func (h HashAlgorithm) Sum(data []byte) ([]byte, error) {
	switch h {
	case SHA256:
		d := sha256.Sum256(data)
		return d[:], nil
	case SHA384:
		d := sha512.Sum384(data)
		return d[:], nil
	case SHA512:
		d := sha512.Sum512(data)
		return d[:], nil
	}
	return nil, fmt.Errorf("unsupported hash algorithm %s", quote(string(h)))
}
