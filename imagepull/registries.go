// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/casemate/casemate/imagepull/trust"
)

const (
	// maxRegistriesFile caps a registries.conf: a few lines for each registry.
	maxRegistriesFile = 1 << 20
	// maxEndpoints caps the places that one image is looked for in.
	maxEndpoints = 16
)

// Registries says where the images of a registry really are, in the format of
// containers-registries.conf(5), version 2. The image policy and the
// credentials' scope never learn of it: the policy judges the requested name,
// and each place is logged in to under its own name. nil asks every registry
// under its own name. Safe for concurrent use.
type Registries struct{ entries []registryEntry }

type registryEntry struct {
	Prefix             string           `toml:"prefix"`
	Location           string           `toml:"location"`
	Insecure           bool             `toml:"insecure"`
	Blocked            bool             `toml:"blocked"`
	MirrorByDigestOnly bool             `toml:"mirror-by-digest-only"`
	Mirrors            []registryMirror `toml:"mirror"`
}

type registryMirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	PullFrom string `toml:"pull-from-mirror"` // "", all, digest-only or tag-only
}

// ParseRegistries reads a registries.conf. A key that it does not know, a search
// list that would make a short name mean another registry than Docker's, aliases
// and version 1 tables are errors: to ignore one would pull something else.
func ParseRegistries(raw []byte) (*Registries, error) {
	if len(raw) > maxRegistriesFile {
		return nil, fmt.Errorf("reading registries.conf: got %d bytes, want at most %d", len(raw), maxRegistriesFile)
	}
	var w struct {
		Search    []string        `toml:"unqualified-search-registries"`
		ShortMode string          `toml:"short-name-mode"`
		Registry  []registryEntry `toml:"registry"`
	}
	meta, err := toml.Decode(string(raw), &w)
	if err != nil {
		return nil, fmt.Errorf("reading registries.conf: %w", tomlError(err))
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return nil, fmt.Errorf("reading registries.conf: unknown key %q", unknown[0])
	}
	for _, key := range meta.Keys() { // the decoder folds case; the format does not
		if key.String() != strings.ToLower(key.String()) {
			return nil, fmt.Errorf("reading registries.conf: unknown key %q: want lower case", key)
		}
	}
	if len(w.Search) > 0 && (len(w.Search) != 1 || w.Search[0] != "docker.io") {
		return nil, fmt.Errorf("reading registries.conf: unqualified-search-registries: got %q, want [\"docker.io\"], which a short name always means", w.Search)
	}
	r := &Registries{entries: w.Registry}
	for i := range r.entries {
		if err := r.entries[i].check(); err != nil {
			return nil, fmt.Errorf("reading registries.conf: registry %d: %w", i+1, err)
		}
		same := func(e registryEntry) bool { return e.Prefix == r.entries[i].Prefix }
		if slices.ContainsFunc(r.entries[:i], same) {
			return nil, fmt.Errorf("reading registries.conf: prefix %q occurs twice", r.entries[i].Prefix)
		}
	}
	return r, nil
}

// tomlError says where a document is wrong and repeats nothing of it: it may be another secret than was meant.
func tomlError(err error) error {
	if syntax, ok := errors.AsType[toml.ParseError](err); ok {
		return fmt.Errorf("line %d: not TOML of this form", syntax.Position.Line)
	}
	return errors.New("not TOML of this form")
}

// withoutUser is a place as errors may name it: a password may stand in front of the host, though none is taken there.
func withoutUser(place string) string {
	if at := strings.LastIndexByte(place, '@'); at >= 0 {
		return "..." + place[at:]
	}
	return place
}

func (e *registryEntry) check() error {
	if e.Prefix == "" {
		e.Prefix = e.Location
	}
	wildcard := strings.HasPrefix(e.Prefix, "*.")
	switch {
	case e.Prefix == "":
		return errors.New("want a prefix or a location")
	case wildcard && strings.ContainsAny(e.Prefix, "/@"):
		return fmt.Errorf("prefix %q: want *.DOMAIN without a path", withoutUser(e.Prefix))
	case hostOf(e.Prefix) != strings.ToLower(hostOf(e.Prefix)) || strings.HasSuffix(hostOf(e.Prefix), "."):
		return fmt.Errorf("prefix %q: want the host in lower case and without a dot at its end, as names are compared", withoutUser(e.Prefix))
	case !validLocation(strings.TrimPrefix(e.Prefix, "*.")):
		return fmt.Errorf("prefix %q: want HOST[:PORT][/PATH]", withoutUser(e.Prefix))
	case e.Location == "" && !wildcard:
		e.Location = e.Prefix
	case e.Location != "" && !validLocation(e.Location):
		return fmt.Errorf("location %q: want HOST[:PORT][/PATH]", withoutUser(e.Location))
	}
	if len(e.Mirrors) >= maxEndpoints {
		return fmt.Errorf("prefix %q: got %d mirrors, want fewer than %d", withoutUser(e.Prefix), len(e.Mirrors), maxEndpoints)
	}
	for _, m := range e.Mirrors {
		switch {
		case !validLocation(m.Location):
			return fmt.Errorf("mirror location %q: want HOST[:PORT][/PATH]", withoutUser(m.Location))
		case !slices.Contains([]string{"", "all", "digest-only", "tag-only"}, m.PullFrom):
			return fmt.Errorf("mirror %s: pull-from-mirror: got %q, want all, digest-only or tag-only", m.Location, m.PullFrom)
		case e.MirrorByDigestOnly && m.PullFrom != "":
			return fmt.Errorf("mirror %s: pull-from-mirror contradicts mirror-by-digest-only", m.Location)
		}
	}
	return nil
}

func hostOf(location string) string {
	host, _, _ := strings.Cut(location, "/")
	return host
}

// validLocation reports whether s can stand before the rest of a repository's name.
func validLocation(s string) bool {
	if s == "" || strings.ContainsAny(s, "@ ") || strings.Contains(s, "//") || strings.HasSuffix(s, "/") {
		return false
	}
	host, path, _ := strings.Cut(s, "/")
	if _, err := name.NewRegistry(host); err != nil || strings.ContainsAny(host, "*_[") {
		return false
	}
	return !strings.Contains(path, ":")
}

// endpoint is one place to ask for an image.
type endpoint struct {
	ref      name.Reference
	insecure bool
	matched  string // the entry that named it, "" for the reference itself
}

// endpoints lists the places for ref in the order of asking: the mirrors, then
// the registry or what stands in for it. insecure lists registries that may be
// spoken to over plain HTTP whatever the file says.
func (r *Registries) endpoints(ref name.Reference, insecure []string) ([]endpoint, error) {
	entry, canonical := r.match(ref)
	if entry == nil {
		return []endpoint{{ref: ref, insecure: isInsecure(ref.Context().RegistryStr(), insecure)}}, nil
	}
	if entry.Blocked {
		return nil, fmt.Errorf("%w: %s by prefix %q of registries.conf", ErrBlocked, canonical, entry.Prefix)
	}
	_, byDigest := ref.(name.Digest)
	var list []endpoint
	add := func(location string, plain bool) error {
		host, _, _ := strings.Cut(location, "/")
		e, err := entry.at(ref, canonical, location, plain || isInsecure(host, insecure))
		list = append(list, e)
		return err
	}
	for _, m := range entry.Mirrors {
		digestOnly := entry.MirrorByDigestOnly || m.PullFrom == "digest-only"
		if digestOnly && !byDigest || m.PullFrom == "tag-only" && byDigest {
			continue
		}
		if err := add(m.Location, m.Insecure); err != nil {
			return nil, err
		}
	}
	if err := add(entry.Location, entry.Insecure); err != nil {
		return nil, err
	}
	return list, nil
}

// match returns the entry with the longest prefix of the image's name, matched
// at a boundary of the name: example.com is no prefix of example.com.evil.org. A
// name with the port that https has anyway is, where no entry has it, one without.
func (r *Registries) match(ref name.Reference) (best *registryEntry, canonical string) {
	canonical = trust.RepositoryName(ref.Context())
	if r == nil {
		return nil, canonical
	}
	if best = r.longest(ref, canonical); best != nil {
		return best, canonical
	}
	if host, path, ok := strings.Cut(canonical, ":443/"); ok {
		if best = r.longest(ref, host+"/"+path); best != nil {
			return best, host + "/" + path
		}
	}
	return nil, canonical
}

func (r *Registries) longest(ref name.Reference, canonical string) (best *registryEntry) {
	for i := range r.entries {
		e := &r.entries[i]
		if e.covers(ref, canonical) && (best == nil || len(e.Prefix) > len(best.Prefix)) {
			best = e
		}
	}
	return best
}

func (e *registryEntry) covers(ref name.Reference, canonical string) bool {
	if domain, ok := strings.CutPrefix(e.Prefix, "*"); ok {
		host, _, _ := strings.Cut(canonical, "/")
		return strings.HasSuffix(host, domain) && host != domain[1:]
	}
	if full := canonical + delimiter(ref) + ref.Identifier(); full == e.Prefix {
		return true
	}
	rest, ok := strings.CutPrefix(canonical, e.Prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func delimiter(ref name.Reference) string {
	if _, ok := ref.(name.Digest); ok {
		return "@"
	}
	return ":"
}

// at puts location in the prefix's place.
func (e *registryEntry) at(ref name.Reference, canonical, location string, insecure bool) (endpoint, error) {
	moved := canonical
	if location != "" { // a wildcard may leave the name as it is
		if strings.HasPrefix(e.Prefix, "*.") {
			_, path, _ := strings.Cut(canonical, "/")
			moved = location + "/" + path
		} else {
			moved = location + strings.TrimPrefix(canonical, e.Prefix)
		}
	}
	var options []name.Option
	if insecure {
		options = append(options, name.Insecure)
	}
	repo, err := name.NewRepository(moved, options...)
	host, _, _ := strings.Cut(moved, "/")
	// A host without dot or port would be read as a path of Docker's registry.
	if err != nil || host != "docker.io" && host != repo.RegistryStr() {
		return endpoint{}, fmt.Errorf("%w: %s moved to %.200q by prefix %q of registries.conf", ErrReference, canonical, moved, e.Prefix)
	}
	out := endpoint{insecure: insecure, matched: e.Prefix}
	if d, ok := ref.(name.Digest); ok {
		out.ref = repo.Digest(d.DigestStr())
	} else {
		out.ref = repo.Tag(ref.Identifier())
	}
	return out, nil
}

// Insecure lists the places that registries.conf allows plain HTTP for, each
// once, in the file's order. It is for the list of weaknesses at start-up.
func (r *Registries) Insecure() []string {
	var list []string
	add := func(location string, insecure bool) {
		if insecure && !slices.Contains(list, location) {
			list = append(list, location)
		}
	}
	for _, e := range r.entries {
		for _, m := range e.Mirrors {
			add(m.Location, m.Insecure)
		}
		add(e.Location, e.Insecure)
	}
	return list
}
