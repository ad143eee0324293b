// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// reference is an image name in its full form: host in lower case, "docker.io/library/" where it is short for that.
type reference struct {
	repo   string // host[:port]/path
	tag    string // of a tag reference
	digest string // of a digest reference
}

// String is the full name.
func (r reference) String() string {
	switch {
	case r.digest != "":
		return r.repo + "@" + r.digest
	case r.tag != "":
		return r.repo + ":" + r.tag
	}
	return r.repo
}

// exact says whether the name is more than a repository.
func (r reference) exact() bool { return r.tag != "" || r.digest != "" }

// fromName takes over a parsed name. A name with tag and digest is one of the digest.
func fromName(ref name.Reference) reference {
	r := reference{repo: RepositoryName(ref.Context())}
	switch n := ref.(type) {
	case name.Digest:
		r.digest = n.DigestStr()
	default:
		r.tag = ref.Identifier()
	}
	return r
}

// RepositoryName is a repository's full name with the host that policies and registries.conf write: docker.io, never
// index.docker.io, and of the spellings of a host that lead to the same one, in lower case and without a dot at its end.
func RepositoryName(r name.Repository) string {
	host := strings.ToLower(r.RegistryStr())
	if domain, port, ok := strings.Cut(host, ".:"); ok {
		host = domain + ":" + port
	}
	if host = strings.TrimSuffix(host, "."); host == name.DefaultRegistry {
		host = "docker.io"
	}
	return host + "/" + r.RepositoryStr()
}

// parseReference reads a name, normalised as docker does. One without tag and digest stays so.
func parseReference(s string) (reference, error) {
	if strings.Contains(s, "@") {
		// The parser drops a tag before the digest. Such a name would not be compared as it is written.
		at := strings.IndexByte(s, '@')
		if tagged(s[:at]) {
			return reference{}, fmt.Errorf("reference %q has a tag and a digest", s)
		}
		digest, err := name.NewDigest(s)
		if err != nil {
			return reference{}, fmt.Errorf("reference %q: %w", s, err)
		}
		return fromName(digest), nil
	}
	if tagged(s) {
		tag, err := name.NewTag(s)
		if err != nil {
			return reference{}, fmt.Errorf("reference %q: %w", s, err)
		}
		return fromName(tag), nil
	}
	repo, err := name.NewRepository(s)
	if err != nil {
		return reference{}, fmt.Errorf("repository %q: %w", s, err)
	}
	return reference{repo: RepositoryName(repo)}, nil
}

// tagged says whether a name without a digest ends in a tag: a colon behind the last slash.
func tagged(s string) bool {
	return strings.LastIndexByte(s, ':') > strings.LastIndexByte(s, '/')
}

// scopesOf lists where the docker transport of a policy is looked up, best match first: the name itself, its
// repository, the namespaces above it, the host, wildcards of the host's domains without its port, and "".
func scopesOf(r reference) []string {
	scopes := []string{r.String()}
	if r.exact() {
		scopes = append(scopes, r.repo)
	}
	rest := r.repo
	for i := strings.LastIndexByte(rest, '/'); i >= 0; i = strings.LastIndexByte(rest, '/') {
		rest = rest[:i]
		scopes = append(scopes, rest)
	}
	host := rest
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	for i := strings.IndexByte(host, '.'); i >= 0; i = strings.IndexByte(host, '.') {
		host = host[i+1:]
		scopes = append(scopes, "*."+host)
	}
	return append(scopes, "")
}

// checkScope refuses a scope that scopesOf lists for no name: a policy with it would not do what it seems to.
func checkScope(scope string) error {
	if scope == "" {
		return nil
	}
	if domain, ok := strings.CutPrefix(scope, "*."); ok {
		if domain == "" || strings.ContainsAny(domain, "*/:@ ") || domain != strings.ToLower(domain) {
			return fmt.Errorf("scope: want *.DOMAIN in lower case")
		}
		return nil
	}
	full := scope
	host, path, isRepo := strings.Cut(scope, "/")
	if !isRepo { // a host, with its port: complete it to a name
		full = scope + "/library/name"
	} else if !strings.ContainsAny(path, "/") && !tagged(scope) && !strings.Contains(scope, "@") {
		full = scope + "/name" // a namespace as well as a repository
	}
	switch {
	case strings.Contains(scope, "*"):
		return fmt.Errorf("scope: a wildcard stands for subdomains, *.DOMAIN, only")
	case strings.HasSuffix(scope, "/") || strings.Contains(scope, "//"):
		return fmt.Errorf("scope: empty path component")
	case host == name.DefaultRegistry:
		return fmt.Errorf("scope: images of %s are looked up under docker.io", name.DefaultRegistry)
	}
	if !strings.ContainsAny(host, ".:[") && host != "localhost" {
		return fmt.Errorf("scope: %q is no host; names without one are looked up under docker.io", host)
	}
	r, err := parseReference(full)
	if err != nil {
		return fmt.Errorf("scope: %w", err)
	}
	if r.String() != full {
		return fmt.Errorf("scope: the full name is %q", strings.TrimSuffix(r.String(), strings.TrimPrefix(full, scope)))
	}
	return nil
}
