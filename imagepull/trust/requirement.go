// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
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

// requirement is one object of a list. insecureAcceptAnything and reject have only their type.
type requirement struct {
	kind     string
	keys     []publicKey        // of sigstoreSigned; any of them may have signed
	ring     openpgp.EntityList // of signedBy; any of them may have signed
	keyPaths []string           // named and not yet loaded
	identity identity
}

// add takes one more key, as text that the policy holds or names.
func (r *requirement) add(text []byte) error {
	if r.kind == typeGPG {
		ring, err := parseKeyring(text)
		r.ring = append(r.ring, ring...)
		return err
	}
	key, err := parseKey(text)
	r.keys = append(r.keys, key)
	return err
}

// gpgJSON is signedBy.
type gpgJSON struct {
	Type           string         `json:"type"`
	KeyType        string         `json:"keyType"`
	KeyPath        *string        `json:"keyPath"`
	KeyPaths       *[]string      `json:"keyPaths"`
	KeyData        *string        `json:"keyData"`
	SignedIdentity jsontext.Value `json:"signedIdentity"`
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
		r, err := parseSignedBy(raw)
		if err != nil {
			return requirement{}, fmt.Errorf("%s: %w", kind, err)
		}
		return r, nil
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
	r := requirement{kind: typeSigstore}
	var doc sigstoreJSON
	if err := unmarshal(raw, &doc); err != nil {
		return r, err
	}
	if name := doc.unsupported(); name != "" {
		return r, fmt.Errorf("member %q is not supported", name)
	}
	err := r.setKeys(named{doc.KeyPath, doc.KeyPaths, doc.KeyData, doc.KeyDatas})
	if err != nil {
		return r, err
	}
	r.identity, err = signedIdentity(doc.SignedIdentity)
	return r, err
}

func parseSignedBy(raw jsontext.Value) (requirement, error) {
	r := requirement{kind: typeGPG}
	var doc gpgJSON
	if err := unmarshal(raw, &doc); err != nil {
		return r, err
	}
	if doc.KeyType != "GPGKeys" {
		return r, fmt.Errorf("keyType: got %q, want GPGKeys", doc.KeyType)
	}
	err := r.setKeys(named{doc.KeyPath, doc.KeyPaths, doc.KeyData, nil})
	if err != nil {
		return r, err
	}
	r.identity, err = signedIdentity(doc.SignedIdentity)
	return r, err
}

// signedIdentity reads the member of that name; absent, it is the format's default.
func signedIdentity(raw jsontext.Value) (identity, error) {
	if len(raw) == 0 {
		return identity{kind: matchRepoDigestOrExact}, nil
	}
	id, err := parseIdentity(raw)
	if err != nil {
		return id, fmt.Errorf("signedIdentity: %w", err)
	}
	return id, nil
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

// named are the members that name keys; nil is absent.
type named struct {
	path  *string
	paths *[]string
	data  *string
	datas *[]string
}

// setKeys takes the keys from the one member that names them.
func (r *requirement) setKeys(n named) error {
	var given []string
	var data []string
	if n.path != nil {
		given, r.keyPaths = append(given, "keyPath"), []string{*n.path}
	}
	if n.paths != nil {
		given, r.keyPaths = append(given, "keyPaths"), *n.paths
	}
	if n.data != nil {
		given, data = append(given, "keyData"), []string{*n.data}
	}
	if n.datas != nil {
		given, data = append(given, "keyDatas"), *n.datas
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
		if err := r.addData(text); err != nil {
			return fmt.Errorf("%s: %w", given[0], err)
		}
	}
	return nil
}

// addData takes a key that stands in the policy: base64 of its text, as containers-policy.json(5) has it, or the text
// itself, as policies written for image-rs have it.
func (r *requirement) addData(text string) error {
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN") {
		return r.add([]byte(text))
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("neither PEM nor base64: %w", err)
	}
	return r.add(raw)
}
