// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

// maxAuthFile caps an auth.json: a line for each registry.
const maxAuthFile = 1 << 20

// AuthFile holds registry credentials in the format of containers-auth.json(5).
// nil means anonymous access everywhere. Safe for concurrent use.
type AuthFile struct {
	logins map[string]account // by key as written
	keys   map[string]string  // registry -> key as written, of the keys without a path
}

type account struct{ username, password string }

// ParseAuthFile reads an auth.json. Entries without auth (credential helpers,
// identity tokens) are skipped; a name that occurs twice, or an auth that is not
// base64("user:password"), is an error that does not quote it.
func ParseAuthFile(raw []byte) (*AuthFile, error) {
	if len(raw) > maxAuthFile {
		return nil, fmt.Errorf("reading auth.json: got %d bytes, want at most %d", len(raw), maxAuthFile)
	}
	var w struct {
		Auths map[string]struct {
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	if err := json.Unmarshal(raw, &w); err != nil {
		return nil, errors.New("reading auth.json: not a JSON object of the form {\"auths\":{\"REGISTRY\":{\"auth\":\"...\"}}}")
	}
	a := &AuthFile{logins: map[string]account{}, keys: map[string]string{}}
	for key, entry := range w.Auths {
		if entry.Auth == "" {
			continue
		}
		l, err := parseAccount(entry.Auth)
		if err != nil {
			return nil, fmt.Errorf("reading auth.json: entry %q: %w", key, err)
		}
		a.logins[key] = l
		if registry, ok := wholeRegistry(key); ok {
			if other, taken := a.keys[registry]; !taken || key < other {
				a.keys[registry] = key
			}
		}
	}
	return a, nil
}

func parseAccount(auth string) (account, error) {
	raw, err := base64.StdEncoding.DecodeString(auth)
	if err != nil {
		return account{}, errors.New("auth is not base64")
	}
	username, password, ok := strings.Cut(string(raw), ":")
	if !ok || username == "" {
		return account{}, errors.New("auth is not base64 of user:password")
	}
	// Some writers end the password with the newline or NUL of their input.
	return account{username, strings.TrimRight(password, "\r\n\x00")}, nil
}

// wholeRegistry reads a key that names a registry and no path in it: a host, or
// one of the historical URL forms such as https://index.docker.io/v1/.
func wholeRegistry(key string) (registry string, ok bool) {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	host, path, _ := strings.Cut(key, "/")
	if path = strings.Trim(path, "/"); path != "" && path != "v1" && path != "v2" {
		return "", false
	}
	switch host {
	case "docker.io", "registry-1.docker.io":
		host = name.DefaultRegistry
	}
	return host, true
}

// lookup finds the login for a repository: the most specific of
// registry/path/name, its parents and the registry, then any key that names the
// registry as a URL. key is the entry that matched, "" for none.
func (a *AuthFile) lookup(repo name.Repository) (auth authn.Authenticator, key string) {
	if a == nil {
		return authn.Anonymous, ""
	}
	registry := repo.RegistryStr()
	names := []string{registry}
	if registry == name.DefaultRegistry {
		names = []string{"docker.io", registry}
	}
	for path := repo.RepositoryStr(); path != ""; path = path[:max(strings.LastIndexByte(path, '/'), 0)] {
		for _, n := range names {
			if l, ok := a.logins[n+"/"+path]; ok {
				return l.authenticator(), n + "/" + path
			}
		}
	}
	if key, ok := a.keys[registry]; ok {
		return a.logins[key].authenticator(), key
	}
	return authn.Anonymous, ""
}

func (l account) authenticator() authn.Authenticator {
	return &authn.Basic{Username: l.username, Password: l.password}
}
