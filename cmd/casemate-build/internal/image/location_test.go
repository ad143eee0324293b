// SPDX-License-Identifier: Apache-2.0

package image

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	c := New(Config{Insecure: []string{"insecure.example:5000"}})
	for in, want := range map[string]string{
		"oci:app":                               "oci:app",
		"oci:app:1":                             "oci:app:1",
		"oci:/a/b/../c:v1.2":                    "oci:/a/c:v1.2",
		"oci:a:b/c":                             "oci:a:b/c",
		"oci:app@" + digest:                     "oci:app@" + digest,
		"docker://registry.example/app":         "docker://registry.example/app",
		"docker://registry.example/app:1":       "docker://registry.example/app:1",
		"docker://alpine":                       "docker://alpine",
		"docker://registry.example/a@" + digest: "docker://registry.example/a@" + digest,
		"registry.example/app:1":                "docker://registry.example/app:1",
		"localhost/app":                         "docker://localhost/app",
		"127.0.0.1:5000/app:1":                  "docker://127.0.0.1:5000/app:1",
	} {
		got, err := c.Parse(in)
		if err != nil || got.String() != want {
			t.Errorf("Parse(%q) = %s, %v, want %s", in, got, err, want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	c := New(Config{})
	for _, in := range []string{
		"", "oci:", "oci::1", "oci:app:", "oci:app@sha256:12", "docker://", "docker://UPPER", "docker://a b",
		"app", "app:1", "library/app", "oci-archive:app.tar", "oci-archive:/tmp/app.tar", "docker-daemon:app:1",
		"containers-storage:app", "dir:/tmp/x", "docker:app/b", "https://registry.example/app",
	} {
		if got, err := c.Parse(in); err == nil {
			t.Errorf("Parse(%q) = %s, want an error", in, got)
		}
	}
}

// go-containerregistry falls back to plain HTTP for names that look local;
// only the ones that the user named may.
func TestParseSchemes(t *testing.T) {
	c := New(Config{Insecure: []string{"insecure.example:5000"}})
	l, err := c.Parse("docker://insecure.example:5000/app")
	if err != nil || l.Ref.Context().Scheme() != "http" {
		t.Errorf("insecure registry: %v, %v, want http", l, err)
	}
	l, err = c.Parse("docker://registry.example/app")
	if err != nil || l.Ref.Context().Scheme() != "https" {
		t.Errorf("registry: %v, %v, want https", l, err)
	}
}
