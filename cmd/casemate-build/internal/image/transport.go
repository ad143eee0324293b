// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"net/http"
)

// httpsOnly refuses requests over plain HTTP, redirects and token servers
// included, except to registries that the user named insecure.
type httpsOnly struct {
	next http.RoundTripper
	// insecure holds names as in references, HOST or HOST:PORT.
	insecure map[string]bool
}

func (t *httpsOnly) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" && !t.insecure[req.URL.Host] {
		return nil, fmt.Errorf("plain HTTP to %s refused; --insecure-registry %s would allow it", req.URL.Host, req.URL.Host)
	}
	return t.next.RoundTrip(req)
}
