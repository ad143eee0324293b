// SPDX-License-Identifier: Apache-2.0

package imagepull

import (
	"net/http"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
)

// testSource is the registry source for a tag, past the login.
func testSource(t testing.TB, r *registryFake, tag string) *registry {
	t.Helper()
	ref, err := name.ParseReference(r.ref(tag), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	return &registry{ref: ref, client: &http.Client{Transport: plainHTTP{}}, retrier: retrier{attempts: 1}}
}

// plainHTTP does what go-containerregistry's transport does after a handshake
// over HTTP.
type plainHTTP struct{}

func (plainHTTP) RoundTrip(req *http.Request) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.URL.Scheme = "http"
	return http.DefaultTransport.RoundTrip(req)
}
