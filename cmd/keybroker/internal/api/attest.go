// SPDX-License-Identifier: Apache-2.0

package api

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/token"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// attest answers POST /attest: evidence for a session's nonce, a token in return.
func (s *Server) attest(w http.ResponseWriter, r *http.Request) {
	record := audit.Record{Event: audit.Attest, Remote: remote(r)}
	sess, err := s.spendSession(r)
	record.ID, record.TEE = sess.correlation, sess.tee
	w.Header().Set(correlationHeader, sess.correlation)
	if err != nil {
		s.refuseSession(w, r, sess, err, record)
		return
	}
	// Read only now: who has no session does not get to send megabytes.
	body, err := readBody(w, r, evidence.MaxAttestationSize)
	if err != nil {
		record.Deny([]verifier.Finding{{Rule: ruleRequest, Wanted: "a body that can be read", Found: err.Error()}})
		if err := s.audit.Write(record); err != nil {
			s.internal(w, "recording a denial", err)
			return
		}
		s.failBody(w, err, evidence.MaxAttestationSize)
		return
	}
	grant, denied, err := s.judge(r.Context(), sess, body, &record)
	if err != nil {
		s.internal(w, "judging an attestation", err)
		return
	}
	if len(denied) > 0 {
		s.denyAttest(w, record, denied...)
		return
	}
	s.grant(w, r, sess, grant, record)
}

// refuseSession answers a request without a nonce to use up, which costs its sender
// nothing: it is held to the rate of its address, and a session's replay is written to
// the audit log once, or the log would grow as fast as anybody can send.
func (s *Server) refuseSession(w http.ResponseWriter, r *http.Request, sess session, err error, record audit.Record) {
	if s.overRate(w, r) {
		return
	}
	if !errors.Is(err, errSessionSpent) {
		s.denyAttest(w, record, verifier.Finding{Rule: "session", Wanted: "a live session", Found: err.Error()})
		return
	}
	record.Event = audit.Replay
	replay := verifier.Finding{Rule: "nonce", Wanted: "a nonce that was not used", Found: "one that was"}
	if s.sessions.replayed(sess.id) {
		record.Deny([]verifier.Finding{replay})
		s.failAttest(w, record)
		return
	}
	s.denyAttest(w, record, replay)
}

// overRate answers a request whose address has used up its allowance, and reports
// whether it did.
func (s *Server) overRate(w http.ResponseWriter, r *http.Request) bool {
	if s.limiter.allow(r, s.now()) {
		return false
	}
	s.fail(w, fault{http.StatusTooManyRequests, variantOverload, "too many requests from this address"})
	return true
}

// spendSession finds the session of r's cookie and uses up its nonce.
func (s *Server) spendSession(r *http.Request) (session, error) {
	cookie, err := r.Cookie(cookieName)
	if err != nil {
		return session{}, errors.New("no session cookie")
	}
	return s.sessions.spend(cookie.Value, s.now())
}

// judge returns what the body earned, or the findings that deny it. It fills in the
// record as it learns.
func (s *Server) judge(ctx context.Context, sess session, body []byte, record *audit.Record) (token.Grant, []verifier.Finding, error) {
	deny := func(rule, wanted, found string) (token.Grant, []verifier.Finding, error) {
		return token.Grant{}, []verifier.Finding{{Rule: rule, Wanted: wanted, Found: found}}, nil
	}
	a, denied, err := s.read(ctx, body)
	if err != nil || denied != nil {
		return token.Grant{}, denied, err
	}
	if subtle.ConstantTimeCompare([]byte(a.RuntimeData.Nonce()), []byte(sess.nonce)) != 1 {
		return deny("nonce", "the nonce of this session", "another")
	}
	in := verifier.Input{TEE: sess.tee, Evidence: a.Evidence}
	if in.Devices, err = evidence.ParseAdditional(a.RuntimeData.AdditionalEvidence()); err != nil {
		return deny("additional-evidence", "evidence of devices with a verifier, tpm or sampledevice", err.Error())
	}
	if in.ReportData, err = a.RuntimeData.ReportData(sess.hash); err != nil {
		return token.Grant{}, nil, err
	}
	if in.DeviceData, err = a.RuntimeData.DeviceReportData(sess.hash); err != nil {
		return token.Grant{}, nil, err
	}
	unlisted, err := s.admission.screen(a.InitData)
	if err != nil {
		return token.Grant{}, nil, err
	}
	if unlisted != nil {
		return token.Grant{}, []verifier.Finding{*unlisted}, nil
	}
	if err := acquire(ctx, s.verifying); err != nil {
		return token.Grant{}, nil, err
	}
	defer release(s.verifying)
	return s.verify(sess, a, in, record)
}

// read takes a body apart when it is its turn: apart it is several times as large, and
// whoever sent it has shown nothing yet.
func (s *Server) read(ctx context.Context, body []byte) (evidence.Attestation, []verifier.Finding, error) {
	if err := acquire(ctx, s.reading); err != nil {
		return evidence.Attestation{}, nil, err
	}
	defer release(s.reading)
	a, err := evidence.ParseAttestation(body)
	if err != nil {
		return a, []verifier.Finding{*deny(ruleRequest, "an attestation of protocol "+evidence.ProtocolVersion, err.Error())}, nil
	}
	return a, nil, nil
}

// verify parses the initdata, which some registration lists, and judges the evidence.
// The caller holds a slot of verifying.
func (s *Server) verify(sess session, a evidence.Attestation, in verifier.Input, record *audit.Record) (token.Grant, []verifier.Finding, error) {
	guest, denied, err := s.admission.admit(s.store, a.InitData)
	record.InitData, record.Workload = guest.digest.String(), guest.registration.ID
	if err != nil {
		return token.Grant{}, nil, err
	}
	if denied != nil {
		return token.Grant{}, []verifier.Finding{*denied}, nil
	}
	in.InitData, in.Debug, in.Registration, in.Now = guest.digest, guest.debug, guest.registration, s.now()
	verdict := s.verifier.Verify(in)
	record.Guest(verdict.Facts)
	record.InitData = guest.digest.String()
	if !verdict.Allowed() {
		return token.Grant{}, reasons(verdict), nil
	}
	return token.Grant{ID: sess.correlation, Workload: guest.registration.ID, Verdict: verdict, RuntimeData: a.RuntimeData}, nil, nil
}

// reasons is never empty for a verdict that does not allow.
func reasons(v verifier.Verdict) []verifier.Finding {
	if failed := v.Failed(); len(failed) > 0 {
		return failed
	}
	return []verifier.Finding{{Rule: "complete", Wanted: "every rule judged", Found: "not every rule was"}}
}

// acquire waits for a slot, so that however many attestations come at once, each that
// runs has a core.
func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func release(slots chan struct{}) { <-slots }

// denyAttest answers with the rule, which is the same for every guest, and keeps what
// was wanted and found to the audit log.
func (s *Server) denyAttest(w http.ResponseWriter, record audit.Record, denied ...verifier.Finding) {
	record.Deny(denied)
	if err := s.audit.Write(record); err != nil {
		s.internal(w, "recording a denial", err)
		return
	}
	s.failAttest(w, record)
}

func (s *Server) failAttest(w http.ResponseWriter, record audit.Record) {
	s.fail(w, fault{http.StatusUnauthorized, variantAttestation, detail("attestation denied", record)})
}

// detail is a fixed phrase, the rule and the id to ask the keybroker's owner about.
func detail(phrase string, record audit.Record) string {
	text := phrase + " [" + record.Rule + "]"
	if record.ID != "" {
		text += ", reference " + record.ID
	}
	return text
}

// grant issues the token, once the record of it is written.
func (s *Server) grant(w http.ResponseWriter, r *http.Request, sess session, g token.Grant, record audit.Record) {
	jwt, err := s.issuer.Issue(g, s.now())
	if err != nil {
		s.internal(w, "issuing a token", err)
		return
	}
	answer, err := evidence.EncodeToken(jwt)
	if err != nil {
		s.internal(w, "encoding a token", err)
		return
	}
	record.Allowed = true
	if err := s.audit.Write(record); err != nil {
		s.internal(w, "recording an attestation", err)
		return
	}
	s.sessions.attest(sess.id, string(jwt))
	setCookie(w, r, sess)
	s.reply(w, http.StatusOK, answer)
}
