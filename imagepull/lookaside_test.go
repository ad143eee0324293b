// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"strings"
	"testing"
)

func TestLookasideBase(t *testing.T) {
	l, err := ParseLookaside([]byte(`
default-docker: {lookaside: 'file:///default/'}
docker:
  a.example: {lookaside: 'https://sig.example/a'}
  a.example/team: {sigstore: 'file:///team'}
  a.example/team/app:v1: {lookaside: 'file:///exact'}
  "*.wild.example": {lookaside: 'file:///wild'}
  docker.io/library: {lookaside: 'file:///library'}
  none.example: {use-sigstore-attachments: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]string{
		"a.example/x:1":           "https://sig.example/a",
		"a.example/team/app:v2":   "file:///team",
		"a.example/team/app:v1":   "file:///exact",
		"a.example/teams/app:v1":  "https://sig.example/a",
		"x.y.wild.example/app:v1": "file:///wild",
		"wild.example/app:v1":     "file:///default",
		"busybox":                 "file:///library",
		"a.example.evil/team/x:1": "file:///default",
		"none.example/x:1":        "",
	} {
		if got := l.base(mustRef(t, ref)); got != want {
			t.Errorf("%s: got %q, want %q", ref, got, want)
		}
	}
	if got := (*Lookaside)(nil).base(mustRef(t, "busybox")); got != "" {
		t.Errorf("without configuration: got %q", got)
	}
}

func TestParseLookasideRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "default-docker:\n  lookasid: file:///x\n", "lookasid"},
		{"unknown section", "docker-default: {}\n", "docker-default"},
		{"relative", "default-docker: {lookaside: store}\n", "want file"},
		{"host in a file URL", "default-docker: {lookaside: 'file://host/x'}\n", "want file"},
		{"credentials", "default-docker: {lookaside: 'https://u:p@host/x'}\n", "want file"},
		{"query", "docker: {a.example: {lookaside: 'https://host/x?y'}}\n", "want file"},
		{"other scheme", "docker: {a.example: {sigstore: 'ftp://host'}}\n", "want file"},
	} {
		if _, err := ParseLookaside([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}
