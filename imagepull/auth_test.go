// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
)

func TestAuthFileLookup(t *testing.T) {
	// a:1 ... are base64 of the letters.
	a, err := ParseAuthFile([]byte(`{
		"auths": {
			"registry.example": {"auth": "cjox"},
			"registry.example/team": {"auth": "dDox", "email": "x"},
			"registry.example/team/app": {"auth": "YTox"},
			"https://index.docker.io/v1/": {"auth": "ZDox"},
			"helper.example": {},
			"token.example": {"identitytoken": "secret"},
			"http://old.example": {"auth": "bzpwYXNzCg=="},
			"port.example:5000": {"auth": "cDox"},
			"https://path.example/team": {"auth": "eDox"}
		},
		"credHelpers": {"x": "y"}
	}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ repo, user, password, key string }{
		{"registry.example/other", "r", "1", "registry.example"},
		{"registry.example/team", "t", "1", "registry.example/team"},
		{"registry.example/team/x", "t", "1", "registry.example/team"},
		{"registry.example/team/app", "a", "1", "registry.example/team/app"},
		{"registry.example/team/app/x", "a", "1", "registry.example/team/app"},
		{"registry.example/teammate", "r", "1", "registry.example"},
		{"evil-registry.example/team", "", "", ""},
		{"registry.example.evil/team", "", "", ""},
		{"alpine", "d", "1", "https://index.docker.io/v1/"},
		{"docker.io/team/app", "d", "1", "https://index.docker.io/v1/"},
		{"helper.example/x", "", "", ""},
		{"token.example/x", "", "", ""},
		{"old.example/x", "o", "pass", "http://old.example"},
		{"port.example:5000/x", "p", "1", "port.example:5000"},
		{"port.example/x", "", "", ""},
		{"path.example/x", "", "", ""},
	} {
		repo, err := name.NewRepository(tt.repo)
		if err != nil {
			t.Fatal(err)
		}
		auth, key := a.lookup(repo)
		cfg, err := authn.Authorization(t.Context(), auth)
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Username != tt.user || cfg.Password != tt.password || key != tt.key {
			t.Errorf("%s: got %s:%s from %q, want %s:%s from %q", tt.repo, cfg.Username, cfg.Password, key, tt.user, tt.password, tt.key)
		}
	}
	if auth, _ := (*AuthFile)(nil).lookup(name.MustParseReference("a").Context()); auth != authn.Anonymous {
		t.Error("no file is not anonymous access")
	}
}

func TestParseAuthFileRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         ``,
		"array":         `[]`,
		"duplicate key": `{"auths":{"a":{"auth":"cjpzZXNhbWU="},"a":{"auth":"cjpzZXNhbWU="}}}`,
		"not base64":    `{"auths":{"a":{"auth":"sesame!"}}}`,
		"no colon":      `{"auths":{"a":{"auth":"c2VzYW1l"}}}`,
		"no user":       `{"auths":{"a":{"auth":"OnNlc2FtZQ=="}}}`,
		"number":        `{"auths":{"a":{"auth":12}}}`,
		"trailing":      `{"auths":{}} sesame`,
		"huge":          `{"auths":{}}` + strings.Repeat(" ", maxAuthFile),
	} {
		_, err := ParseAuthFile([]byte(text))
		if err == nil {
			t.Errorf("%s: accepted", name)
		} else if strings.Contains(err.Error(), "sesame") || strings.Contains(err.Error(), "c2VzYW1l") {
			t.Errorf("%s: the error quotes the secret: %v", name, err)
		}
	}
}
