// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	dynamic    = "dynamic"
	maxDepth   = 16 // the format itself nests four deep, tokens of others some more
	maxObjects = 32 // slots and tokens, as in cryptsetup
)

// metadata is the JSON area (LUKS2 specification, section 3). A member that is not named here is refused, since it may
// change what the others mean; json matches names exactly and refuses doubles.
type metadata struct {
	Keyslots map[string]keyslot        `json:"keyslots"`
	Tokens   map[string]jsontext.Value `json:"tokens"`
	Segments map[string]segment        `json:"segments"`
	Digests  map[string]keyDigest      `json:"digests"`
	Config   config                    `json:"config"`
}

type keyslot struct {
	Type     string `json:"type"`
	KeySize  int    `json:"key_size"`
	AF       af     `json:"af"`
	Area     area   `json:"area"`
	KDF      kdf    `json:"kdf"`
	Priority *int   `json:"priority,omitzero"`
}

type af struct {
	Type    string `json:"type"`
	Stripes int    `json:"stripes"`
	Hash    string `json:"hash"`
}

type area struct {
	Type       string  `json:"type"`
	Offset     decimal `json:"offset"`
	Size       decimal `json:"size"`
	Encryption string  `json:"encryption"`
	KeySize    int     `json:"key_size"`
}

type segment struct {
	Type       string     `json:"type"`
	Offset     decimal    `json:"offset"`
	Size       string     `json:"size"`
	IVTweak    decimal    `json:"iv_tweak"`
	Encryption string     `json:"encryption"`
	SectorSize int        `json:"sector_size"`
	Integrity  *integrity `json:"integrity,omitzero"`
}

type integrity struct {
	Type              string `json:"type"`
	JournalEncryption string `json:"journal_encryption"`
	JournalIntegrity  string `json:"journal_integrity"`
}

type keyDigest struct {
	Type       string   `json:"type"`
	Keyslots   []string `json:"keyslots"`
	Segments   []string `json:"segments"`
	Hash       string   `json:"hash"`
	Iterations int      `json:"iterations"`
	Salt       []byte   `json:"salt"`
	Digest     []byte   `json:"digest"`
}

type config struct {
	JSONSize     decimal       `json:"json_size"`
	KeyslotsSize decimal       `json:"keyslots_size"`
	Flags        []string      `json:"flags,omitzero"`
	Requirements *requirements `json:"requirements,omitzero"`
}

type requirements struct {
	Mandatory []string `json:"mandatory"`
}

// decimal is a number that the format writes as a string of digits. It remembers that it was there.
type decimal struct {
	value uint64
	found bool
}

func number(v uint64) decimal { return decimal{value: v, found: true} }

// MarshalText writes the digits.
func (d decimal) MarshalText() ([]byte, error) { return strconv.AppendUint(nil, d.value, 10), nil }

// UnmarshalText takes digits without sign, spaces or leading zeros.
func (d *decimal) UnmarshalText(b []byte) error {
	v, err := parseDecimal(string(b))
	*d = decimal{value: v, found: err == nil}
	return err
}

func parseDecimal(s string) (uint64, error) {
	v, err := strconv.ParseUint(s, 10, 63)
	if err != nil || strconv.FormatUint(v, 10) != s {
		return 0, fmt.Errorf("%q is no decimal number below 2^63", s)
	}
	return v, nil
}

// objectID is the name of a slot, token, segment or digest.
func objectID(name string) (int, error) {
	v, err := parseDecimal(name)
	if err != nil || v >= maxObjects {
		return 0, fmt.Errorf("object %q, want a number below %d", name, maxObjects)
	}
	return int(v), nil
}

// parseMetadata decodes a JSON area: one object, then zeros to the end.
func parseMetadata(b []byte) (*metadata, error) {
	text, rest, ended := bytes.Cut(b, []byte{0})
	if !ended || !zero(rest) {
		return nil, errors.New("want one JSON object and then zeros to the area's end")
	}
	if err := checkShape(text); err != nil {
		return nil, err
	}
	var m metadata
	if err := json.Unmarshal(text, &m, json.RejectUnknownMembers(true)); err != nil {
		return nil, err
	}
	return &m, nil
}

// checkShape refuses deep nesting, and null: it would be taken for a member that is not there.
func checkShape(text []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	for {
		token, err := d.ReadToken()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case token.Kind() == 'n':
			return fmt.Errorf("null at byte %d", d.InputOffset())
		case d.StackDepth() > maxDepth:
			return fmt.Errorf("nested deeper than %d at byte %d", maxDepth, d.InputOffset())
		}
	}
}
