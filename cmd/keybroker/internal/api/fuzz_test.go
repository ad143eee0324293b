// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/casemate/casemate/agent/evidence"
)

// FuzzRequest sends what anybody can send: no secret, no token and no list comes back,
// nothing fails inside, and every refusal has the protocol's body.
func FuzzRequest(f *testing.F) {
	b := newBroker(f)
	doc := document(f, "web", "")
	b.register("web", doc, nil)
	b.put("web", "app/key/1", "v")
	g, other := b.guest(doc), b.guest(doc)
	g.auth()
	other.auth()
	attestation := other.attestation() // for another session than the cookie's
	for _, seed := range []struct {
		method, path, cookie, authorization string
		body                                []byte
	}{
		{"POST", "/kbs/v0/auth", "", "", evidence.Request{TEE: evidence.SNP, Hashes: evidence.SupportedHashes()}.Encode()},
		{"POST", "/kbs/v0/attest", "kbs-session-id=" + g.cookie, "", attestation},
		{"GET", "/kbs/v0/resource/app/key/1", "kbs-session-id=" + g.cookie, "Bearer a.b.c", nil},
		{"GET", "/kbs/v0/resource/app/../1?x=1", "", "", nil},
		{"PUT", "/owner/v1/workloads/web", "", "Bearer x", []byte("{}")},
		{"GET", "/healthz", "", "", nil},
	} {
		f.Add(seed.method, seed.path, seed.cookie, seed.authorization, seed.body)
	}
	h := b.server.Handler()
	f.Fuzz(func(t *testing.T, method, path, cookie, authorization string, body []byte) {
		u, err := url.ParseRequestURI(path)
		if err != nil || u.Path == "" || u.Path[0] != '/' {
			t.Skip("not a request line")
		}
		r := httptest.NewRequest("GET", "/", bytes.NewReader(body))
		r.Method, r.URL = method, u
		r.Header.Set("Cookie", cookie)
		r.Header.Set("Authorization", authorization)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch {
		case w.Code >= 500:
			t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		case w.Code == http.StatusOK && u.Path != "/healthz" && u.Path != "/kbs/v0/auth":
			t.Fatalf("%s %s: %s", method, path, w.Body)
		case w.Code != http.StatusOK && len(u.Path) < len(ownerPrefix):
		case w.Code != http.StatusOK && u.Path[:len(ownerPrefix)] != ownerPrefix:
			if _, err := evidence.ParseErrorInformation(w.Body.Bytes()); err != nil {
				t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
			}
		}
	})
}
