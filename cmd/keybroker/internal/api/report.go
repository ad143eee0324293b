// SPDX-License-Identifier: Apache-2.0

package api

import (
	"net/http"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
)

// report answers POST /report: what a guest says of itself after its evidence was judged,
// for the owner, who cannot look into it. One for a session, whatever the judgement was.
func (s *Server) report(w http.ResponseWriter, r *http.Request) {
	var id string
	var accepted bool
	cookie, err := r.Cookie(cookieName)
	if err == nil {
		id, accepted, err = s.sessions.report(cookie.Value, s.now())
	}
	if err != nil {
		if !s.overRate(w, r) {
			s.fail(w, fault{http.StatusUnauthorized, variantAttestation, "no session that may report"})
		}
		return
	}
	w.Header().Set(correlationHeader, id)
	body, err := readBody(w, r, evidence.MaxGuestReport)
	if err != nil {
		s.failBody(w, err, evidence.MaxGuestReport)
		return
	}
	value := jsontext.Value(body)
	if value.Kind() != '{' || !value.IsValid() {
		s.fail(w, fault{http.StatusBadRequest, variantRequest, "a report is a JSON object"})
		return
	}
	if err := value.Compact(); err != nil {
		s.fail(w, fault{http.StatusBadRequest, variantRequest, "a report is a JSON object"})
		return
	}
	err = s.audit.KeepReport(id, accepted, value)
	if err == nil {
		err = s.audit.Write(audit.Record{Event: audit.Report, Allowed: true, ID: id, Remote: remote(r)})
	}
	if err != nil {
		s.internal(w, "keeping a guest's report", err)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// report returns the correlation id of a session whose evidence was judged, and whether it
// was accepted, once.
func (t *sessions) report(id string, now time.Time) (correlation string, accepted bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.byID[id]
	if s == nil || !now.Before(s.expires) || !s.spent || s.reported {
		return "", false, errSessionUnknown
	}
	s.reported = true
	return s.correlation, s.token != "", nil
}
