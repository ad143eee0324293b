// SPDX-License-Identifier: Apache-2.0

package initdata

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/BurntSushi/toml"

	"github.com/casemate/casemate/agent/evidence"
)

// Version is the only version of the format.
const Version = "0.1.0"

// MaxSize bounds a document in bytes; what a relying party takes is the same.
const MaxSize = evidence.MaxInitDataSize

// Lengths of the hardware fields that keep the digest.
const (
	HostDataSize   = 32 // SNP, HOST_DATA
	MRConfigIDSize = 48 // TDX, MRCONFIGID
)

// maxDigestSize is SHA-512, the longest that a document may name.
const maxDigestSize = 64

// ErrUnbound says that the hardware value is all zero: the guest was launched without
// initdata, so no document belongs to it.
var ErrUnbound = errors.New("the launch bound no initdata: the hardware value is all zero")

// InitData is a parsed document together with the bytes it came from.
type InitData struct {
	// Algorithm is the hash that the document names for its own digest.
	Algorithm evidence.HashAlgorithm
	// Data maps file names ("aa.toml", "policy.rego") to contents. Never nil.
	Data map[string]string

	raw    []byte
	digest []byte
}

// Parse reads a document as delivered. The result keeps a copy of raw, so the bytes
// that are hashed are the bytes that were parsed.
func Parse(raw []byte) (*InitData, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("parsing initdata: %d bytes, at most %d allowed", len(raw), MaxSize)
	}
	d := &InitData{raw: bytes.Clone(raw)}
	if err := checkDepth(d.raw); err != nil {
		return nil, fmt.Errorf("parsing initdata: %w", err)
	}
	// A map and not a struct: the library matches struct fields without regard to case.
	var doc map[string]any
	if _, err := toml.Decode(string(d.raw), &doc); err != nil {
		return nil, fmt.Errorf("parsing initdata: %w", syntaxError(err))
	}
	if err := d.fill(doc); err != nil {
		return nil, fmt.Errorf("parsing initdata: %w", err)
	}
	digest, err := d.Algorithm.Sum(d.raw)
	if err != nil {
		return nil, fmt.Errorf("hashing initdata: %w", err)
	}
	d.digest = digest
	return d, nil
}

// syntaxError keeps the line and drops the text that the library quotes from the
// document, which may be long and is not ours to repeat.
func syntaxError(err error) error {
	var parse toml.ParseError
	if errors.As(err, &parse) {
		return fmt.Errorf("not TOML at line %d", parse.Position.Line)
	}
	return errors.New("not TOML")
}

func (d *InitData) fill(doc map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(doc)) {
		if key != "version" && key != "algorithm" && key != "data" {
			return fmt.Errorf("unknown key %.64q", key)
		}
	}
	version, ok := doc["version"].(string)
	if !ok {
		return errors.New("key \"version\" is missing or not a string")
	}
	if version != Version {
		return fmt.Errorf("version is %.64q, want %q", version, Version)
	}
	algorithm, ok := doc["algorithm"].(string)
	if !ok {
		return errors.New("key \"algorithm\" is missing or not a string")
	}
	var err error
	if d.Algorithm, err = evidence.ParseHashAlgorithm(algorithm); err != nil {
		return err
	}
	data, ok := doc["data"].(map[string]any)
	if !ok {
		return errors.New("key \"data\" is missing or not a table")
	}
	d.Data = make(map[string]string, len(data))
	for name, value := range data {
		text, ok := value.(string)
		if !ok {
			return fmt.Errorf("data key %.64q is not a string", name)
		}
		d.Data[name] = text
	}
	return nil
}

// Raw returns a copy of the document as delivered.
func (d *InitData) Raw() []byte { return bytes.Clone(d.raw) }

// Digest returns a copy of the hash of the document's bytes: 32, 48 or 64 bytes.
func (d *InitData) Digest() []byte { return bytes.Clone(d.digest) }

// HostData returns the HOST_DATA of an SNP guest launched with this document.
func (d *InitData) HostData() [HostDataSize]byte {
	return [HostDataSize]byte(fit(d.digest, HostDataSize))
}

// MRConfigID returns the MRCONFIGID of a TDX guest launched with this document.
func (d *InitData) MRConfigID() [MRConfigIDSize]byte {
	return [MRConfigIDSize]byte(fit(d.digest, MRConfigIDSize))
}

// fit cuts the digest at its end or fills it with zeros, as the host does at launch.
func fit(digest []byte, size int) []byte {
	out := make([]byte, size)
	copy(out, digest)
	return out
}

// Match returns nil when bound, the value of a fresh report, is the digest of this
// document: HostDataSize or MRConfigIDSize bytes. An all-zero value is ErrUnbound.
func (d *InitData) Match(bound []byte) error { return MatchDigest(d.digest, bound) }

// MatchDigest is Match for a digest whose document is not at hand: 1 to 64 bytes.
func MatchDigest(digest, bound []byte) error {
	if len(digest) == 0 || len(digest) > maxDigestSize {
		return fmt.Errorf("matching initdata: a digest of %d bytes, want 1 to %d", len(digest), maxDigestSize)
	}
	// Any other length is not a hardware field; a short one would match too easily.
	if len(bound) != HostDataSize && len(bound) != MRConfigIDSize {
		return fmt.Errorf("matching initdata: the hardware value is %d bytes, want %d or %d",
			len(bound), HostDataSize, MRConfigIDSize)
	}
	if IsZero(bound) {
		return fmt.Errorf("matching initdata: %w", ErrUnbound)
	}
	if want := fit(digest, len(bound)); !bytes.Equal(bound, want) {
		return fmt.Errorf("matching initdata: the hardware keeps %x, this document is %x", bound, want)
	}
	return nil
}

// IsZero reports whether a hardware value is all zero, that is, whether the guest was
// launched without initdata. An empty value is not a statement and not zero.
func IsZero(bound []byte) bool {
	return len(bound) > 0 && len(bytes.Trim(bound, "\x00")) == 0
}
