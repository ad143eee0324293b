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
	kind      string
	keys      []publicKey        // of sigstoreSigned; any of them may have signed
	authority *authority         // of sigstoreSigned, in place of keys; it issued the signer's certificate
	rekor     []publicKey        // of sigstoreSigned; when there are any, one must have logged the signature
	ring      openpgp.EntityList // of signedBy; any of them may have signed
	pending   []keyFile          // named and not yet loaded
	identity  identity
}

// role is what a text that the policy holds or names is for.
type role int

const (
	roleSigner role = iota
	roleRekor
	roleRoot
	roleIntermediate
)

// keyFile is a text that the policy names.
type keyFile struct {
	role role
	path string
}

// add takes one more key, or certificates, as text that the policy holds or names.
func (r *requirement) add(as role, text []byte) error {
	switch {
	case r.kind == typeGPG:
		ring, err := parseKeyring(text)
		r.ring = append(r.ring, ring...)
		return err
	case as == roleRoot || as == roleIntermediate:
		return r.authority.add(as, text)
	}
	key, err := parseKey(text)
	if as == roleRekor {
		r.rekor = append(r.rekor, key)
	} else {
		r.keys = append(r.keys, key)
	}
	return err
}

// loaded returns r with the texts that it names, read.
func (r requirement) loaded(read map[string][]byte) (requirement, error) {
	if r.authority != nil {
		r.authority = r.authority.clone()
	}
	for _, f := range r.pending {
		if err := r.add(f.role, read[f.path]); err != nil {
			return r, fmt.Errorf("reading key %q: %w", f.path, err)
		}
	}
	r.pending = nil
	return r, nil
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

func parseSignedBy(raw jsontext.Value) (requirement, error) {
	r := requirement{kind: typeGPG}
	var doc gpgJSON
	if err := unmarshal(raw, &doc); err != nil {
		return r, err
	}
	if doc.KeyType != "GPGKeys" {
		return r, fmt.Errorf("keyType: got %q, want GPGKeys", doc.KeyType)
	}
	given := []member{byPath("keyPath", doc.KeyPath), byPaths("keyPaths", doc.KeyPaths), inPlace("keyData", doc.KeyData)}
	key, err := exactlyOne("keyPath, keyPaths and keyData", given)
	if err != nil {
		return r, err
	}
	if err := r.take(roleSigner, key); err != nil {
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

// member is one that holds or names texts.
type member struct {
	name  string
	given bool
	paths []string
	data  []string
}

func byPath(name string, path *string) member {
	if path == nil {
		return member{name: name}
	}
	return member{name: name, given: true, paths: []string{*path}}
}

func byPaths(name string, paths *[]string) member {
	if paths == nil {
		return member{name: name}
	}
	return member{name: name, given: true, paths: *paths}
}

func inPlace(name string, text *string) member {
	if text == nil {
		return member{name: name}
	}
	return member{name: name, given: true, data: []string{*text}}
}

func allInPlace(name string, texts *[]string) member {
	if texts == nil {
		return member{name: name}
	}
	return member{name: name, given: true, data: *texts}
}

// exactlyOne returns the one member that is there; names are those that could be.
func exactlyOne(names string, members []member) (member, error) {
	var found []member
	var given []string
	for _, m := range members {
		if m.given {
			found, given = append(found, m), append(given, m.name)
		}
	}
	if len(found) != 1 {
		return member{}, fmt.Errorf("want one of %s, got %d (%s)", names, len(found), strings.Join(given, ", "))
	}
	return found[0], nil
}

// take adds what a member holds, and remembers what it names.
func (r *requirement) take(as role, m member) error {
	if n := len(m.paths) + len(m.data); n < 1 || n > maxKeys {
		return fmt.Errorf("%s: %d keys, want 1 to %d", m.name, n, maxKeys)
	}
	for _, path := range m.paths {
		if path == "" {
			return fmt.Errorf("%s: empty path", m.name)
		}
		r.pending = append(r.pending, keyFile{as, path})
	}
	for _, text := range m.data {
		if err := r.addData(as, text); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

// addData takes a key that stands in the policy: base64 of its text, as containers-policy.json(5) has it, or the text
// itself, as policies written for image-rs have it.
func (r *requirement) addData(as role, text string) error {
	if strings.HasPrefix(strings.TrimSpace(text), "-----BEGIN") {
		return r.add(as, []byte(text))
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return fmt.Errorf("neither PEM nor base64: %w", err)
	}
	return r.add(as, raw)
}
