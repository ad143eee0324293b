// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"crypto/aes"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// WrapType names the cipher that wraps the layer options.
type WrapType string

const (
	// A256GCM is AES-256-GCM with a 12-byte IV, no associated data and the
	// 16-byte tag behind the ciphertext.
	A256GCM WrapType = "A256GCM"
	// A256CTR is AES-256-CTR with a 16-byte big-endian counter block and no
	// authentication.
	A256CTR WrapType = "A256CTR"
)

const (
	gcmIVBytes  = 12
	gcmTagBytes = 16

	// MaxPacketBytes bounds an annotation packet. One with the longest key id
	// and the longest options needs 7 KiB; the rest is room for the provider
	// settings of v2, which are read past.
	MaxPacketBytes = 16 << 10

	// MaxOptionsBytes bounds wrapped or plain layer options; ocicrypt writes
	// about 220 bytes.
	MaxOptionsBytes = 4 << 10

	packetVersion  = "0.1.0"
	packetProvider = "kbs"
)

var (
	// ErrPacket is wrapped by every error about bytes that are no annotation
	// packet.
	ErrPacket = errors.New("malformed annotation packet")
	// ErrProvider is wrapped when a packet was wrapped by another key
	// management service than a KBS.
	ErrProvider = errors.New("annotation packet of another key provider")
)

// Packet is an annotation packet that a KBS key wraps.
type Packet struct {
	// KeyID is a resource URI without a host, "kbs:///" and 1 or more segments.
	KeyID string
	// WrapType is A256GCM or A256CTR.
	WrapType WrapType
	// IV has 12 bytes for A256GCM and 16 for A256CTR.
	IV []byte
	// WrappedData is the ciphertext of the layer options, for A256GCM with its
	// 16-byte tag.
	WrappedData []byte
}

// packetJSON is the wire form. v1 has the first four members; v2 adds the
// others, all of which have defaults.
type packetJSON struct {
	KeyID            string         `json:"kid"`
	WrappedData      []byte         `json:"wrapped_data"`
	IV               []byte         `json:"iv"`
	WrapType         WrapType       `json:"wrap_type"`
	Version          *string        `json:"version,omitempty"`
	Provider         *string        `json:"provider,omitempty"`
	ProviderSettings *ignoredObject `json:"provider_settings,omitempty"`
	Annotations      *ignoredObject `json:"annotations,omitempty"`
}

// ParsePacket reads an annotation packet v1 or v2. A packet that it returns has
// a known wrap type, an IV of its size, a plain key id and at least one byte of
// ciphertext. The errors wrap ErrPacket or ErrProvider and hold nothing of the
// wrapped data.
func ParsePacket(raw []byte) (Packet, error) {
	if len(raw) > MaxPacketBytes {
		return Packet{}, fmt.Errorf("%w: %d bytes, want at most %d", ErrPacket, len(raw), MaxPacketBytes)
	}
	var p packetJSON
	err := json.Unmarshal(raw, &p, json.RejectUnknownMembers(true))
	if err != nil {
		return Packet{}, fmt.Errorf("%w: %w", ErrPacket, err)
	}
	// The provider is looked at first: another one may leave out iv and
	// wrap_type and name its keys in its own way.
	if p.Provider != nil && *p.Provider != packetProvider {
		return Packet{}, fmt.Errorf("%w: %q, want %q", ErrProvider, *p.Provider, packetProvider)
	}
	if p.Version != nil && *p.Version != packetVersion {
		return Packet{}, fmt.Errorf("%w: version %q, want %q", ErrPacket, *p.Version, packetVersion)
	}
	keyID, err := parseKeyID(p.KeyID)
	if err != nil {
		return Packet{}, fmt.Errorf("%w: %w", ErrPacket, err)
	}
	packet := Packet{KeyID: keyID, WrapType: p.WrapType, IV: p.IV, WrappedData: p.WrappedData}
	if err := packet.checkSizes(); err != nil {
		return Packet{}, fmt.Errorf("%w: %w", ErrPacket, err)
	}
	return packet, nil
}

func (p *Packet) checkSizes() error {
	ivBytes, tagBytes := gcmIVBytes, gcmTagBytes
	switch p.WrapType {
	case A256GCM:
	case A256CTR:
		ivBytes, tagBytes = aes.BlockSize, 0
	default:
		return fmt.Errorf("wrap type %q, want %s or %s", p.WrapType, A256GCM, A256CTR)
	}
	if len(p.IV) != ivBytes {
		return fmt.Errorf("%s with an iv of %d bytes, want %d", p.WrapType, len(p.IV), ivBytes)
	}
	if n := len(p.WrappedData) - tagBytes; n < 1 || n > MaxOptionsBytes {
		return fmt.Errorf("%d bytes of wrapped data, want %d to %d", len(p.WrappedData), tagBytes+1, tagBytes+MaxOptionsBytes)
	}
	return nil
}

// Encode writes the packet in its v1 form, which every reader knows.
func (p *Packet) Encode() ([]byte, error) {
	raw, err := json.Marshal(packetJSON{KeyID: p.KeyID, WrappedData: p.WrappedData, IV: p.IV, WrapType: p.WrapType})
	if err != nil {
		return nil, fmt.Errorf("encoding annotation packet for %s: %w", p.KeyID, err)
	}
	return raw, nil
}

// ignoredObject is a JSON object (or null) whose members are checked for
// syntax and repeated names and then forgotten.
type ignoredObject struct{}

func (*ignoredObject) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	switch kind := d.PeekKind(); kind {
	case jsontext.KindBeginObject, jsontext.KindNull:
		return d.SkipValue()
	case jsontext.KindInvalid:
		return d.SkipValue()
	default:
		return fmt.Errorf("want an object, got %s", kind)
	}
}
