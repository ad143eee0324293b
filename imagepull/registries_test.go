// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/casemate/casemate/imagepull/trust"
)

func registriesOf(t testing.TB, text string) *Registries {
	t.Helper()
	r, err := ParseRegistries([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEndpoints(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	const file = `
unqualified-search-registries = ["docker.io"]
[[registry]]
prefix = "foo.com"
location = "real.example/base"
[[registry]]
prefix = "foo.com/team/app"
[[registry.mirror]]
location = "m1.example/x"
insecure = true
[[registry.mirror]]
location = "m2.example"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "m3.example"
pull-from-mirror = "tag-only"
[[registry]]
prefix = "*.wild.example"
location = "tame.example:5000"
[[registry]]
location = "docker.io"
[[registry.mirror]]
location = "hub.example/cache"
[[registry]]
location = "bydigest.example"
mirror-by-digest-only = true
[[registry.mirror]]
location = "m4.example"
[[registry]]
prefix = "blocked.example/bad"
blocked = true
`
	for _, tt := range []struct{ name, ref, want string }{
		{"no entry", "other.example/a:1", "other.example/a:1"},
		{"moved", "foo.com/a/b:1", "real.example/base/a/b:1"},
		{"longest prefix, tag", "foo.com/team/app:1", "m1.example/x:1! m3.example:1?"},
		{"below the longest prefix", "foo.com/team/app/sub:1", "m1.example/x/sub:1! m3.example/sub:1 foo.com/team/app/sub:1"},
		{"digest", "foo.com/team/app/sub@" + digest, "m1.example/x/sub@" + digest + "! m2.example/sub@" + digest + " foo.com/team/app/sub@" + digest},
		{"component boundary of the path", "foo.com/team/apple:1", "real.example/base/team/apple:1"},
		{"host that only starts like the prefix", "foo.com.evil.example/team/app:1", "foo.com.evil.example/team/app:1"},
		{"host that ends like the prefix", "evil-foo.com/team/app:1", "evil-foo.com/team/app:1"},
		{"prefix in the path", "bar.io/foo.com/team/app:1", "bar.io/foo.com/team/app:1"},
		{"wildcard", "a.b.wild.example/x:1", "tame.example:5000/x:1"},
		{"wildcard is not the domain itself", "wild.example/x:1", "wild.example/x:1"},
		{"moved, by another spelling", "FOO.com./a/b:1", "real.example/base/a/b:1"},
		{"moved, with the port of https", "foo.com:443/a/b:1", "real.example/base/a/b:1"},
		{"another port", "foo.com:5000/a/b:1", "foo.com:5000/a/b:1"},
		{"docker.io by its short name", "busybox", "hub.example/cache/library/busybox:latest index.docker.io/library/busybox:latest"},
		{"mirror by digest only, tag", "bydigest.example/a:1", "bydigest.example/a:1"},
		{"mirror by digest only, digest", "bydigest.example/a@" + digest, "m4.example/a@" + digest + " bydigest.example/a@" + digest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if strings.Contains(tt.want, "?") {
				// A mirror named by host alone cannot hold what is the whole prefix.
				_, err := registriesOf(t, file).endpoints(mustRef(t, tt.ref), nil)
				if !errors.Is(err, ErrReference) {
					t.Errorf("got %v, want %v", err, ErrReference)
				}
				return
			}
			list, err := registriesOf(t, file).endpoints(mustRef(t, tt.ref), nil)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, e := range list {
				s := e.ref.Name()
				if e.insecure {
					s += "!"
				}
				got = append(got, s)
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got  %s\nwant %s", s, tt.want)
			}
		})
	}
	// All are spellings of the first, to the name's servers and to TLS.
	for _, ref := range []string{"blocked.example/bad/a:1", "Blocked.Example/bad/a:1", "blocked.example./bad/a:1", "blocked.example:443/bad/a:1", "Blocked.example.:443/bad/a:1"} {
		if _, err := registriesOf(t, file).endpoints(mustRef(t, ref), nil); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: got %v, want %v", ref, err, ErrBlocked)
		}
	}
	if list, err := registriesOf(t, file).endpoints(mustRef(t, "blocked.example/badly:1"), nil); err != nil || len(list) != 1 {
		t.Errorf("a name that only starts like a blocked one: got %v, %v", list, err)
	}
}

func mustRef(t testing.TB, s string) name.Reference {
	t.Helper()
	ref, err := parseReference(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ref.name
}

func TestParseRegistriesRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"no TOML", "[[registry", "registries.conf"},
		{"unknown key", "credential-helpers = ['x']", `unknown key "credential-helpers"`},
		{"unknown key of a registry", "[[registry]]\nlocation='a.example'\ninsecur=true", `unknown key "registry.insecur"`},
		{"key in another case", "[[registry]]\nlocation='a.example'\nBlocked=false", "want lower case"},
		{"host that no name is compared with", "[[registry]]\nprefix='A.example'\nblocked=true", "lower case"},
		{"host with a dot at its end", "[[registry]]\nprefix='a.example./x'\nblocked=true", "dot at its end"},
		{"version 1", "[registries.search]\nregistries=['docker.io']", "unknown key"},
		{"another search list", "unqualified-search-registries=['quay.io']", "short name"},
		{"aliases", "[aliases]\nfedora='evil.example/fedora'", "unknown key"},
		{"empty entry", "[[registry]]\nblocked=true", "want a prefix or a location"},
		{"wildcard in the middle", "[[registry]]\nprefix='a.*.example'\nlocation='b.example'", "want HOST"},
		{"wildcard with a path", "[[registry]]\nprefix='*.example/x'\nlocation='b.example'", "without a path"},
		{"scheme in a location", "[[registry]]\nlocation='https://a.example'", "want HOST"},
		{"file as a location", "[[registry]]\nlocation='a.example'\n[[registry.mirror]]\nlocation='file:///etc'", "want HOST"},
		{"mirror without a location", "[[registry]]\nlocation='a.example'\n[[registry.mirror]]\ninsecure=true", "mirror location"},
		{"repeated prefix", "[[registry]]\nlocation='a.example'\n[[registry]]\nprefix='a.example'\nlocation='b.example'", "occurs twice"},
		{"unknown pull-from-mirror", "[[registry]]\nlocation='a.example'\n[[registry.mirror]]\nlocation='b.example'\npull-from-mirror='some'", "pull-from-mirror"},
		{"two rules for one mirror", "[[registry]]\nlocation='a.example'\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation='b.example'\npull-from-mirror='all'", "contradicts"},
		{"mirror bomb", "[[registry]]\nlocation='a.example'\n" + strings.Repeat("[[registry.mirror]]\nlocation='b.example'\n", maxEndpoints), "fewer than"},
		{"too large", strings.Repeat("#", maxRegistriesFile+1), "at most"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := ParseRegistries([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// TestPullFromMirror: the image comes from the second mirror, the policy is asked
// about the name that was requested, and nobody resolves that name.
func TestPullFromMirror(t *testing.T) {
	empty, full := newRegistryFake(t), newRegistryFake(t)
	body := someTar(t)
	full.put(t, "v1", testImage{layers: []testLayer{gzipLayer(t, body)}})
	conf := registriesOf(t, fmt.Sprintf(`
[[registry]]
prefix = "registry.example/team"
[[registry.mirror]]
location = "%s"
insecure = true
[[registry.mirror]]
location = "%s"
insecure = true
`, empty.host(), full.host()))
	policy := policyOf(t, `{"default":[{"type":"reject"}],"transports":{"docker":{"registry.example/team":[{"type":"insecureAcceptAnything"}]}}}`)
	p := newTestPuller(t, empty, func(c *Config) { c.Registries, c.Policy, c.Insecure = conf, policy, nil })
	img := mustPull(t, p, "registry.example/team/app:v1")
	wantFile(t, img.Layers[0]+"/etc/motd", "hello\n")
	if got := conf.Insecure(); len(got) != 2 {
		t.Errorf("weaknesses: got %q, want both mirrors", got)
	}
	// The mirror's own name is not what was asked for.
	if _, err := p.Pull(t.Context(), full.ref("v1")); !errors.Is(err, trust.ErrDenied) && !errors.Is(err, ErrInsecure) {
		t.Errorf("pull by the mirror's name: got %v", err)
	}
}

// TestNoPlaceHasIt names every place and the entry that led to it.
func TestNoPlaceHasIt(t *testing.T) {
	a, b := newRegistryFake(t), newRegistryFake(t)
	conf := registriesOf(t, fmt.Sprintf("[[registry]]\nprefix='registry.example'\nlocation='%s'\ninsecure=true\n[[registry.mirror]]\nlocation='%s'\ninsecure=true\n", b.host(), a.host()))
	p := newTestPuller(t, a, func(c *Config) { c.Registries = conf })
	err := mustFail(t, p, "registry.example/app:v1", ErrNotFound)
	for _, want := range []string{a.host(), b.host(), `prefix "registry.example"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not name %s", err, want)
		}
	}
	wantEmpty(t, p)
}
