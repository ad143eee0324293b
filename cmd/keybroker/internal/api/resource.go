// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/policy"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/token"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// plugin is the only one that is served.
const plugin = "resource"

// resource answers GET /resource/{repository}/{type}/{tag}: a secret of the workload
// that the token is for, encrypted to the TEE key that the token is bound to.
func (s *Server) resource(w http.ResponseWriter, r *http.Request) {
	segments := []string{r.PathValue("repository"), r.PathValue("type"), r.PathValue("tag")}
	path := strings.Join(segments, "/")
	if err := owner.CheckPath(path); err != nil {
		s.fail(w, fault{http.StatusNotFound, variantPath, "not a resource path"})
		return
	}
	query, err := singleValues(r.URL.RawQuery)
	if err != nil {
		s.fail(w, fault{http.StatusBadRequest, variantRequest, "malformed or repeated query parameter"})
		return
	}
	t, err := s.bearer(r)
	if err != nil {
		s.refuseBearer(w, r, path, err)
		return
	}
	w.Header().Set(correlationHeader, t.ID)
	record := audit.Record{ID: t.ID, Event: audit.Release, Workload: t.Workload, Resource: path, Remote: remote(r)}
	record.Guest(t.Facts)
	denied, err := s.mayHave(r, t, policy.Request{Plugin: plugin, Path: segments, Query: query, Workload: t.Workload})
	if err != nil {
		s.internal(w, "judging a release", err)
		return
	}
	if len(denied) > 0 {
		s.denyRelease(w, r, record, fault{http.StatusForbidden, variantPolicy, "release denied"}, denied...)
		return
	}
	s.hand(w, r, t, path, record)
}

// singleValues parses a query in which each parameter occurs once.
func singleValues(raw string) (map[string]string, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, err
	}
	single := make(map[string]string, len(values))
	for name, list := range values {
		if len(list) != 1 {
			return nil, fmt.Errorf("parameter %q occurs %d times", name, len(list))
		}
		single[name] = list[0]
	}
	return single, nil
}

var errNoToken = errors.New("no attested session and no bearer token")

// bearer verifies the token of r: the session's, else the one in the header, as Trustee
// does it. Either is judged anew at every request.
func (s *Server) bearer(r *http.Request) (token.Verified, error) {
	compact := ""
	if cookie, err := r.Cookie(cookieName); err == nil {
		if sess, err := s.sessions.find(cookie.Value, s.now()); err == nil {
			compact = sess.token
		}
	}
	if compact == "" {
		scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || value == "" {
			return token.Verified{}, errNoToken
		}
		compact = value
	}
	return s.issuer.Verify(compact, s.now())
}

// refuseBearer answers a request that nobody can be held to.
func (s *Server) refuseBearer(w http.ResponseWriter, r *http.Request, path string, err error) {
	f := fault{http.StatusUnauthorized, variantTokenInvalid, "token refused"}
	if errors.Is(err, errNoToken) {
		f.variant = variantToken
	}
	record := audit.Record{Event: audit.Release, Resource: path, Remote: remote(r)}
	s.denyRelease(w, r, record, f, verifier.Finding{Rule: "token", Wanted: "an attested session or a token of this keybroker", Found: err.Error()})
}

// mayHave reads the registration as it is now and judges the token by it and by its
// policy.
func (s *Server) mayHave(r *http.Request, t token.Verified, q policy.Request) ([]verifier.Finding, error) {
	registration, err := s.store.Workload(t.Workload)
	if errors.Is(err, store.ErrNotFound) {
		return []verifier.Finding{{Rule: "workload", Wanted: "a registered workload", Found: "no longer registered"}}, nil
	}
	if err != nil {
		return nil, err
	}
	if failed := verifier.Failed(verifier.Recheck(t.Facts, registration)); len(failed) > 0 {
		return failed, nil
	}
	p, err := s.policies.Compile(registration.Policy)
	if err != nil {
		return nil, err
	}
	allowed, err := p.Allow(r.Context(), t.Claims, q)
	found := "not true"
	if err != nil {
		found = err.Error()
	}
	if err != nil || !allowed {
		return []verifier.Finding{{Rule: "policy", Wanted: "allow = true", Found: found}}, nil
	}
	return nil, nil
}

// hand encrypts and sends the secret, once the record of it is written.
func (s *Server) hand(w http.ResponseWriter, r *http.Request, t token.Verified, path string, record audit.Record) {
	secret, err := s.store.Secret(t.Workload, path)
	if errors.Is(err, store.ErrNotFound) {
		// What is released once is spent from here on, also when the answer gets lost.
		secret, err = s.store.TakeSecret(t.Workload, path)
	}
	if errors.Is(err, store.ErrNotFound) {
		s.denyRelease(w, r, record, fault{http.StatusNotFound, variantResource, "no such resource"},
			verifier.Finding{Rule: "resource", Wanted: "a secret of the workload under this path", Found: "none"})
		return
	}
	if err != nil {
		s.internal(w, "reading a secret", err)
		return
	}
	defer clear(secret)
	jwe, err := evidence.SealJWE(t.TEEKey, secret)
	if err != nil {
		s.internal(w, "encrypting a secret", err)
		return
	}
	record.Allowed = true
	if err := s.audit.Write(record); err != nil {
		s.internal(w, "recording a release", err)
		return
	}
	s.reply(w, http.StatusOK, jwe.Encode())
}

// denyRelease holds denials, each of which is a line of the audit log, to the rate of
// the address.
func (s *Server) denyRelease(w http.ResponseWriter, r *http.Request, record audit.Record, f fault, denied ...verifier.Finding) {
	if s.overRate(w, r) {
		return
	}
	record.Deny(denied)
	if err := s.audit.Write(record); err != nil {
		s.internal(w, "recording a denial", err)
		return
	}
	f.detail = detail(f.detail, record)
	s.fail(w, f)
}
