// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// parseDigest reads "algorithm:hex" (OCI image-spec, descriptor.md, Digests).
// The result is safe as a path component: lower-case hex of the right length.
func parseDigest(s string) (v1.Hash, error) {
	algorithm, digits, _ := strings.Cut(s, ":")
	h, err := newHash(algorithm)
	if err != nil {
		return v1.Hash{}, err
	}
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != h.Size() || strings.ToLower(digits) != digits {
		return v1.Hash{}, fmt.Errorf("%w: want %d lower-case hex digits after %q, got %.140q", ErrManifest, 2*h.Size(), algorithm+":", digits)
	}
	return v1.Hash{Algorithm: algorithm, Hex: digits}, nil
}

func newHash(algorithm string) (hash.Hash, error) {
	switch algorithm {
	case "sha256":
		return sha256.New(), nil
	case "sha384":
		return sha512.New384(), nil
	case "sha512":
		return sha512.New(), nil
	}
	return nil, fmt.Errorf("%w: digest algorithm %.20q", ErrUnsupported, algorithm)
}

// digester hashes a stream that is expected to have one digest.
type digester struct {
	hash.Hash
	want v1.Hash
}

func newDigester(want v1.Hash) (*digester, error) {
	h, err := newHash(want.Algorithm)
	if err != nil {
		return nil, err
	}
	return &digester{Hash: h, want: want}, nil
}

func (d *digester) sum() v1.Hash {
	return v1.Hash{Algorithm: d.want.Algorithm, Hex: hex.EncodeToString(d.Sum(nil))}
}

// verify compares what was hashed with the wanted digest; fault names the check.
func (d *digester) verify(fault Fault) error {
	if got := d.sum(); got != d.want {
		return fmt.Errorf("%w: got %s, want %s", fault, got, d.want)
	}
	return nil
}

func verifyBytes(raw []byte, want v1.Hash) error {
	d, err := newDigester(want)
	if err != nil {
		return err
	}
	d.Write(raw)
	return d.verify(ErrDigest)
}
