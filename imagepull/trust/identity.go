// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
)

const (
	matchExact             = "matchExact"
	matchRepoDigestOrExact = "matchRepoDigestOrExact"
	matchRepository        = "matchRepository"
	exactReference         = "exactReference"
	exactRepository        = "exactRepository"
	remapIdentity          = "remapIdentity"
	// matchDigestOnly is not in containers-policy.json(5): a signature need not claim a name. cosign 3 claims none.
	matchDigestOnly = "matchDigestOnly"
)

// identity says which name a signature has to claim.
type identity struct {
	kind         string
	want         reference // exactReference, exactRepository
	prefix       string    // remapIdentity
	signedPrefix string
}

// parseIdentity reads a signedIdentity object.
func parseIdentity(raw jsontext.Value) (identity, error) {
	kind, err := typeOf(raw)
	if err != nil {
		return identity{}, err
	}
	id := identity{kind: kind}
	switch kind {
	case matchExact, matchRepoDigestOrExact, matchRepository, matchDigestOnly:
		err = unmarshal(raw, &plainJSON{})
	case exactReference:
		var doc struct {
			Type            string `json:"type"`
			DockerReference string `json:"dockerReference"`
		}
		if err = unmarshal(raw, &doc); err == nil {
			id.want, err = parseReference(doc.DockerReference)
		}
		if err == nil && !id.want.exact() {
			err = errors.New("dockerReference has neither a tag nor a digest")
		}
	case exactRepository:
		var doc struct {
			Type             string `json:"type"`
			DockerRepository string `json:"dockerRepository"`
		}
		if err = unmarshal(raw, &doc); err == nil {
			id.want, err = parseReference(doc.DockerRepository)
		}
		if err == nil && id.want.exact() {
			err = errors.New("dockerRepository has a tag or a digest")
		}
	case remapIdentity:
		var doc struct {
			Type         string `json:"type"`
			Prefix       string `json:"prefix"`
			SignedPrefix string `json:"signedPrefix"`
		}
		if err = unmarshal(raw, &doc); err == nil {
			err = errors.Join(checkPrefix("prefix", doc.Prefix), checkPrefix("signedPrefix", doc.SignedPrefix))
		}
		id.prefix, id.signedPrefix = doc.Prefix, doc.SignedPrefix
	default:
		return identity{}, fmt.Errorf("unknown type %q", kind)
	}
	if err != nil {
		return identity{}, fmt.Errorf("%s: %w", kind, err)
	}
	return id, nil
}

// checkPrefix: a host, a namespace or a repository in the full form. Anything else would never match.
func checkPrefix(what, prefix string) error {
	if strings.HasPrefix(prefix, "*") || strings.Contains(prefix, "@") || strings.Contains(prefix, "/") && tagged(prefix) {
		return fmt.Errorf("%s %q: want a host, namespace or repository", what, prefix)
	}
	if prefix == "" {
		return fmt.Errorf("%s is empty", what)
	}
	if err := checkScope(prefix); err != nil {
		return fmt.Errorf("%s %q: %w", what, prefix, err)
	}
	return nil
}

// accepts says whether a signature that claims the name signed is good for the image requested as intended. The
// zero reference is a signature that claims none: only the rule that asks for none accepts it.
func (id identity) accepts(intended, signed reference) bool {
	if id.kind == matchDigestOnly {
		return true
	}
	if signed == (reference{}) {
		return false
	}
	switch id.kind {
	case matchExact:
		return signed.exact() && signed == intended
	case matchRepoDigestOrExact:
		return sameRepoDigestOrExact(intended, signed)
	case matchRepository:
		return signed.repo == intended.repo
	case exactReference:
		return signed == id.want
	case exactRepository:
		return signed.repo == id.want.repo
	case remapIdentity:
		return sameRepoDigestOrExact(id.remap(intended), signed)
	}
	return false
}

// sameRepoDigestOrExact: for an image requested by tag the very name, for one requested by digest any name in its
// repository, but a name. The digest itself is compared with the payload's in any case.
func sameRepoDigestOrExact(intended, signed reference) bool {
	if !signed.exact() {
		return false
	}
	if intended.digest != "" {
		return signed.repo == intended.repo
	}
	return signed == intended
}

// remap replaces the prefix, which ends where a path component ends.
func (id identity) remap(r reference) reference {
	if r.repo == id.prefix {
		r.repo = id.signedPrefix
	} else if rest, ok := strings.CutPrefix(r.repo, id.prefix+"/"); ok {
		r.repo = id.signedPrefix + "/" + rest
	}
	return r
}

// describe says in words what accepts asks for.
func (id identity) describe(intended reference) string {
	switch id.kind {
	case matchDigestOnly:
		return "its digest"
	case matchRepository:
		return "repository " + intended.repo
	case exactReference:
		return id.want.String()
	case exactRepository:
		return "repository " + id.want.repo
	case remapIdentity:
		intended = id.remap(intended)
	}
	if intended.digest != "" && id.kind != matchExact {
		return "a tag or digest in repository " + intended.repo
	}
	return intended.String()
}
