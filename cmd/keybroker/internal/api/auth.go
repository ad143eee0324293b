// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"net/http"
	"slices"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// ruleRequest is that a body is one of the protocol's.
const ruleRequest = "request"

// auth answers POST /auth: a nonce and a session for it.
func (s *Server) auth(w http.ResponseWriter, r *http.Request) {
	now := s.now()
	if !s.limiter.allow(r, now) {
		s.fail(w, fault{http.StatusTooManyRequests, variantOverload, "too many requests from this address"})
		return
	}
	body, err := readBody(w, r, evidence.MaxRequestSize)
	if err != nil {
		s.failBody(w, err, evidence.MaxRequestSize)
		return
	}
	q, err := evidence.ParseRequest(body)
	if err != nil {
		s.refuseAuth(w, r, ruleRequest, "a KBS request of protocol "+evidence.ProtocolVersion, err)
		return
	}
	if !verifier.Supports(q.TEE) {
		s.refuseAuth(w, r, "verifier", "a TEE with a verifier", errors.New(string(q.TEE)))
		return
	}
	sess, err := s.sessions.open(q.TEE, chooseHash(q.Hashes), now)
	if err != nil {
		s.fail(w, fault{http.StatusServiceUnavailable, variantOverload, "too many sessions"})
		return
	}
	answer, err := evidence.Challenge{Nonce: sess.nonce, Hash: sess.hash}.Encode()
	if err != nil {
		s.internal(w, "encoding a challenge", err)
		return
	}
	setCookie(w, r, sess)
	s.reply(w, http.StatusOK, answer)
}

// chooseHash prefers the default of the protocol; a guest that offers a list without it
// gets the strongest that it has.
func chooseHash(offered []evidence.HashAlgorithm) evidence.HashAlgorithm {
	if offered == nil {
		return evidence.DefaultHash
	}
	for _, h := range []evidence.HashAlgorithm{evidence.DefaultHash, evidence.SHA512, evidence.SHA256} {
		if slices.Contains(offered, h) {
			return h
		}
	}
	return evidence.DefaultHash // ParseRequest refuses a list without any of them
}

// refuseAuth answers a request that opens no session.
func (s *Server) refuseAuth(w http.ResponseWriter, r *http.Request, rule, wanted string, found error) {
	record := audit.Record{Event: audit.Auth, Rule: rule, Wanted: wanted, Found: found.Error(), Remote: remote(r)}
	if err := s.audit.Write(record); err != nil {
		s.internal(w, "recording a refused request", err)
		return
	}
	f := fault{http.StatusUnauthorized, variantAttestation, detail("session refused", record)}
	var version *evidence.VersionError
	switch {
	case errors.As(found, &version):
		// Guests of other versions recognise this text of Trustee's.
		f.detail = "KBS Client Protocol Version Mismatch: expect =" + evidence.ProtocolVersion + " while the request is " + version.Got
	case rule == ruleRequest:
		f.status, f.variant = http.StatusBadRequest, variantRequest
	}
	s.fail(w, f)
}

// setCookie has no Domain and no Path: it is for this host, and by RFC 6265 section
// 5.1.4 for the paths beside the one that set it.
func setCookie(w http.ResponseWriter, r *http.Request, sess session) {
	w.Header().Set(correlationHeader, sess.correlation)
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: sess.id, Expires: sess.expires.UTC(),
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	})
}
