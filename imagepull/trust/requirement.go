// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	typeAccept   = "insecureAcceptAnything"
	typeReject   = "reject"
	typeSigstore = "sigstoreSigned"
	typeGPG      = "signedBy"
)

// maxKeys bounds the keys of one requirement: each costs a verification for every signature.
const maxKeys = 16

// requirement is one object of a list. Only sigstoreSigned has more than its type.
type requirement struct {
	kind     string
	keys     []publicKey // any of them may have signed
	keyPaths []string    // named and not yet loaded
	identity identity
}

// plainJSON is insecureAcceptAnything and reject.
type plainJSON struct {
	Type string `json:"type"`
}

// sigstoreJSON is sigstoreSigned. A member that is there and empty is told from one that is absent.
type sigstoreJSON struct {
	Type           string         `json:"type"`
	KeyPath        *string        `json:"keyPath"`
	KeyPaths       *[]string      `json:"keyPaths"`
	KeyData        *string        `json:"keyData"`
	KeyDatas       *[]string      `json:"keyDatas"`
	SignedIdentity jsontext.Value `json:"signedIdentity"` // null is there, too

	// Further conditions on a signature. To read past one would be to enforce less than is written.
	Fulcio             jsontext.Value `json:"fulcio"`
	PKI                jsontext.Value `json:"pki"`
	RekorPublicKeyPath jsontext.Value `json:"rekorPublicKeyPath"`
	RekorKeyPaths      jsontext.Value `json:"rekorPublicKeyPaths"`
	RekorKeyData       jsontext.Value `json:"rekorPublicKeyData"`
	RekorKeyDatas      jsontext.Value `json:"rekorPublicKeyDatas"`
}

// parseRequirements reads a list of requirements, of which there must be one at least.
func parseRequirements(list []jsontext.Value) ([]requirement, error) {
	if len(list) == 0 {
		return nil, errors.New("no requirements: an image would be accepted by none being there")
	}
	requirements := make([]requirement, 0, len(list))
	for i, raw := range list {
		r, err := parseRequirement(raw)
		if err != nil {
			return nil, fmt.Errorf("requirement %d: %w", i, err)
		}
		requirements = append(requirements, r)
	}
	return requirements, nil
}

func parseRequirement(raw jsontext.Value) (requirement, error) {
	kind, err := typeOf(raw)
	if err != nil {
		return requirement{}, err
	}
	switch kind {
	case typeAccept, typeReject:
		if err := unmarshal(raw, &plainJSON{}); err != nil {
			return requirement{}, fmt.Errorf("%s: %w", kind, err)
		}
		return requirement{kind: kind}, nil
	case typeSigstore:
		r, err := parseSigstore(raw)
		if err != nil {
			return requirement{}, fmt.Errorf("%s: %w", kind, err)
		}
		return r, nil
	case typeGPG:
		return requirement{}, fmt.Errorf("type %q is not supported", kind)
	}
	return requirement{}, fmt.Errorf("unknown type %q", kind)
}

// typeOf reads the "type" member alone; the others depend on it.
func typeOf(raw jsontext.Value) (string, error) {
	var t struct {
		Type *string `json:"type"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return "", err
	}
	if t.Type == nil {
		return "", errors.New("no type")
	}
	return *t.Type, nil
}

func parseSigstore(raw jsontext.Value) (requirement, error) {
	r := requirement{kind: typeSigstore, identity: identity{kind: matchRepoDigestOrExact}}
	var doc sigstoreJSON
	if err := unmarshal(raw, &doc); err != nil {
		return r, err
	}
	if name := doc.unsupported(); name != "" {
		return r, fmt.Errorf("member %q is not supported", name)
	}
	if err := r.setKeys(&doc); err != nil {
		return r, err
	}
	if len(doc.SignedIdentity) > 0 {
		var err error
		if r.identity, err = parseIdentity(doc.SignedIdentity); err != nil {
			return r, fmt.Errorf("signedIdentity: %w", err)
		}
	}
	return r, nil
}

// unsupported names a member that is there and not enforced here.
func (d *sigstoreJSON) unsupported() string {
	for _, m := range []struct {
		name  string
		value jsontext.Value
	}{
		{"fulcio", d.Fulcio},
		{"pki", d.PKI},
		{"rekorPublicKeyPath", d.RekorPublicKeyPath},
		{"rekorPublicKeyPaths", d.RekorKeyPaths},
		{"rekorPublicKeyData", d.RekorKeyData},
		{"rekorPublicKeyDatas", d.RekorKeyDatas},
	} {
		if len(m.value) > 0 {
			return m.name
		}
	}
	return ""
}

// setKeys takes the keys from the one member that names them.
func (r *requirement) setKeys(doc *sigstoreJSON) error {
	var given []string
	var data []string
	if doc.KeyPath != nil {
		given, r.keyPaths = append(given, "keyPath"), []string{*doc.KeyPath}
	}
	if doc.KeyPaths != nil {
		given, r.keyPaths = append(given, "keyPaths"), *doc.KeyPaths
	}
	if doc.KeyData != nil {
		given, data = append(given, "keyData"), []string{*doc.KeyData}
	}
	if doc.KeyDatas != nil {
		given, data = append(given, "keyDatas"), *doc.KeyDatas
	}
	if len(given) != 1 {
		return fmt.Errorf("want one of keyPath, keyPaths, keyData and keyDatas, got %d (%s)", len(given), strings.Join(given, ", "))
	}
	if n := len(r.keyPaths) + len(data); n < 1 || n > maxKeys {
		return fmt.Errorf("%s: %d keys, want 1 to %d", given[0], n, maxKeys)
	}
	for _, path := range r.keyPaths {
		if path == "" {
			return fmt.Errorf("%s: empty path", given[0])
		}
	}
	for _, text := range data {
		key, err := parseKeyData(text)
		if err != nil {
			return fmt.Errorf("%s: %w", given[0], err)
		}
		r.keys = append(r.keys, key)
	}
	return nil
}

// parseKeyData reads a key inside the policy: base64 of PEM text, as containers-policy.json(5) has it, or the PEM text
// itself, as policies written for image-rs have it.
func parseKeyData(text string) (publicKey, error) {
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN") {
		return parseKey([]byte(text))
	}
	pem, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return publicKey{}, fmt.Errorf("neither PEM nor base64: %w", err)
	}
	return parseKey(pem)
}
