// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// tokenType names casemate's token. Its member hmac is the HMAC-SHA-256 over Layout.canonical; its key is 32 bytes of
// HKDF-SHA-256 of the volume key, without salt, with tokenInfo.
const (
	tokenType = "casemate-header"
	tokenInfo = "casemate LUKS2 header v1"
	macSize   = sha256.Size
)

type ownToken struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	HMAC     []byte   `json:"hmac"`
}

// canonical is the text that the token covers. Each value comes from a closed list, is a number or a checked UUID, so
// none can hold a line's end. Key slots are not part of it: passphrases may be changed without the volume key's
// owner being asked, and a slot gives this volume key or none.
func (l Layout) canonical(uuid string) []byte {
	return fmt.Appendf(nil, "casemate-header 1\ntype %s\nuuid %s\ncipher %s\nintegrity %s\nsector size %d\noffset %d\nsize %d\n",
		l.Type, uuid, l.Cipher, l.Integrity, l.SectorSize, l.Offset, l.Size)
}

func (l Layout) mac(volumeKey []byte, uuid string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, volumeKey, nil, tokenInfo, sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("deriving the key of the token: %w", err)
	}
	defer clear(key)
	m := hmac.New(sha256.New, key)
	m.Write(l.canonical(uuid))
	return m.Sum(nil), nil
}

// authenticate compares the token with the header.
func (h *header) authenticate(volumeKey []byte) error {
	want, err := h.Layout.mac(volumeKey, h.uuid)
	if err != nil {
		return err
	}
	if !hmac.Equal(want, h.mac) {
		return errors.New("token casemate-header does not match the header: it was changed after the volume was made")
	}
	return nil
}

// findToken looks for casemate's token; other tokens only need to be objects with a type.
func findToken(tokens map[string]jsontext.Value) ([]byte, error) {
	if len(tokens) > maxObjects {
		return nil, fmt.Errorf("%d tokens, want at most %d", len(tokens), maxObjects)
	}
	var mac []byte
	for id, raw := range tokens {
		if _, err := objectID(id); err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		var kind struct {
			Type string `json:"type"`
		}
		if err := json.Unmarshal(raw, &kind); err != nil || kind.Type == "" {
			return nil, fmt.Errorf("token %s: want an object with a type", id)
		}
		if kind.Type != tokenType {
			continue
		}
		var own ownToken
		switch err := json.Unmarshal(raw, &own, json.RejectUnknownMembers(true)); {
		case err != nil:
			return nil, fmt.Errorf("token %s: %w", id, err)
		case len(own.HMAC) != macSize:
			return nil, fmt.Errorf("token %s: hmac of %d bytes, want %d", id, len(own.HMAC), macSize)
		case mac != nil:
			return nil, fmt.Errorf("two tokens %q", tokenType)
		}
		mac = own.HMAC
	}
	return mac, nil
}
