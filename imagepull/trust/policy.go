// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sort"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// maxPolicy bounds a policy document. The largest in use, with the keys inside, have some 100 KiB.
const maxPolicy = 1 << 20

// Policy is a parsed policy.json. After LoadKeys it does not change and may be used by several goroutines.
type Policy struct {
	hash     [32]byte
	fallback []requirement            // "default"
	scopes   map[string][]requirement // of the docker transport
}

// KeyReader reads the public key that a policy names.
type KeyReader interface {
	// ReadKey returns the PEM text or OpenPGP keyring behind a keyPath, which is whatever the policy says: a file name or a URI.
	ReadKey(ctx context.Context, path string) ([]byte, error)
}

// document is policy.json as it stands.
type document struct {
	Default    []jsontext.Value                       `json:"default"`
	Transports map[string]map[string][]jsontext.Value `json:"transports"`
}

// ParsePolicy parses a policy.json strictly. Keys that it names by path are not read yet: see LoadKeys.
func ParsePolicy(raw []byte) (*Policy, error) {
	if len(raw) > maxPolicy {
		return nil, fmt.Errorf("parsing policy: %d bytes, at most %d", len(raw), maxPolicy)
	}
	var doc document
	if err := unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("parsing policy: %w", err)
	}
	p := &Policy{hash: sha256.Sum256(raw), scopes: map[string][]requirement{}}
	var err error
	if p.fallback, err = parseRequirements(doc.Default); err != nil {
		return nil, fmt.Errorf("parsing policy: default: %w", err)
	}
	for transport, scopes := range doc.Transports {
		for scope, list := range scopes {
			// Other transports' images are not pulled here; their entries must still be such that a reader of the policy
			// can rely on all of it being understood.
			requirements, err := parseRequirements(list)
			if err == nil && transport == "docker" {
				err = checkScope(scope)
				p.scopes[scope] = requirements
			}
			if err != nil {
				return nil, fmt.Errorf("parsing policy: transports.%s[%q]: %w", transport, scope, err)
			}
		}
	}
	return p, nil
}

// unmarshal decodes into v: names in their exact case and once, valid UTF-8, no member that v does not have.
func unmarshal(raw []byte, v any) error {
	return json.Unmarshal(raw, v, json.RejectUnknownMembers(true))
}

// LoadKeys reads every key that the policy names by path, each path once. Without it, or after an error, Check
// denies what asks for such a key. It is called before the first Check.
func (p *Policy) LoadKeys(ctx context.Context, keys KeyReader) error {
	read := map[string][]byte{}
	for _, entry := range p.entries() {
		for i := range entry.requirements {
			r := &entry.requirements[i]
			for _, f := range r.pending {
				if _, ok := read[f.path]; ok {
					continue
				}
				text, err := keys.ReadKey(ctx, f.path)
				if err != nil {
					return fmt.Errorf("reading key %q of %s: %w", f.path, entry.name, err)
				}
				read[f.path] = text
			}
		}
	}
	for _, entry := range p.entries() {
		for i := range entry.requirements {
			r := &entry.requirements[i]
			loaded, err := r.loaded(read)
			if err != nil {
				return fmt.Errorf("%s: %w", entry.name, err)
			}
			*r = loaded
		}
	}
	return nil
}

// Hash is the SHA-256 of the document's bytes as given to ParsePolicy. Keys behind a path are not part of it.
func (p *Policy) Hash() [32]byte { return p.hash }

// entry is one list of requirements with its place in the document.
type entry struct {
	name         string
	requirements []requirement
}

// entries returns all lists, in an order that does not change.
func (p *Policy) entries() []entry {
	list := []entry{{nameOfDefault, p.fallback}}
	for scope, requirements := range p.scopes {
		list = append(list, entry{nameOfScope(scope), requirements})
	}
	sort.Slice(list[1:], func(i, j int) bool { return list[1+i].name < list[1+j].name })
	return list
}

const nameOfDefault = "default"

func nameOfScope(scope string) string { return fmt.Sprintf("transports.docker[%q]", scope) }
