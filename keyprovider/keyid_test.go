// SPDX-License-Identifier: Apache-2.0

package keyprovider

import (
	"strings"
	"testing"
)

func TestParseKeyID(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"kbs:///default/key/1", "kbs:///default/key/1"},
		{"kbs:///a", "kbs:///a"},
		{"kbs:///a/b/c/d-_.e", "kbs:///a/b/c/d-_.e"},
		{"kbs://kbs.example:8080/a/b/c", "kbs:///a/b/c"},
		{"kbs://[::1]:8080/a/b/c", "kbs:///a/b/c"},
	} {
		got, err := parseKeyID(c.in)
		if err != nil || got != c.want {
			t.Errorf("parseKeyID(%q) = %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestParseKeyIDRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"empty":               "",
		"no scheme":           "/default/key/1",
		"other scheme":        "file:///etc/shadow",
		"upper-case scheme":   "KBS:///a/b/c",
		"another plugin":      "kbs+pkcs11:///a/b/c",
		"no path":             "kbs://host",
		"empty path":          "kbs:///",
		"empty segment":       "kbs:///a//c",
		"trailing slash":      "kbs:///a/b/c/",
		"dot segment":         "kbs:///a/./c",
		"parent segment":      "kbs:///a/../../attestation-policy",
		"hidden segment":      "kbs:///a/.b/c",
		"escape":              "kbs:///a/b/%2e%2e",
		"query":               "kbs:///a/b/c?x=1",
		"fragment":            "kbs:///a/b/c#x",
		"user in the host":    "kbs://u@h/a/b/c",
		"newline":             "kbs:///a/b/c\n",
		"header injection":    "kbs:///a/b/c\r\nX: y",
		"NUL":                 "kbs:///a/b/c\x00",
		"not ASCII":           "kbs:///a/b/é",
		"invalid UTF-8":       "kbs:///a/b/\xff",
		"longer than allowed": "kbs:///a/b/" + strings.Repeat("c", MaxKeyIDBytes),
	} {
		if got, err := parseKeyID(in); err == nil {
			t.Errorf("%s: parseKeyID(%q) = %q, want an error", name, in, got)
		}
	}
}

func TestCheckKeyID(t *testing.T) {
	if err := CheckKeyID("kbs:///default/key/1"); err != nil {
		t.Error(err)
	}
	for _, in := range []string{
		"kbs://host/default/key/1", "kbs:///key/1", "kbs:///default/key/1/2", "/default/key/1", "default/key/1",
	} {
		if err := CheckKeyID(in); err == nil {
			t.Errorf("CheckKeyID(%q) succeeded, want an error", in)
		}
	}
}
