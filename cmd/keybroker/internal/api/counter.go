// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/policy"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
	"github.com/casemate/casemate/cmd/keybroker/internal/token"
	"github.com/casemate/casemate/cmd/keybroker/internal/verifier"
)

// counterPlugin is what policies know requests about counters by.
const counterPlugin = "counter"

// counter answers GET and POST /counter/{volume}: what is kept of a volume of the workload that the token is for, after
// the change that a POST asks for. It is judged as a secret is, and like one encrypted to the TEE key of the token.
func (s *Server) counter(w http.ResponseWriter, r *http.Request) {
	volume := r.PathValue("volume")
	if err := owner.CheckVolume(volume); err != nil {
		s.fail(w, fault{http.StatusNotFound, variantPath, "not the name of a volume"})
		return
	}
	var change *evidence.CounterChange
	if r.Method == http.MethodPost {
		body, err := readBody(w, r, evidence.MaxCounterSize)
		if err != nil {
			s.failBody(w, err, evidence.MaxCounterSize)
			return
		}
		c, err := evidence.ParseCounterChange(body)
		if err != nil {
			s.fail(w, fault{http.StatusBadRequest, variantRequest, "not a change of a counter"})
			return
		}
		change = &c
	}
	resource := counterPlugin + "/" + volume
	t, err := s.bearer(r)
	if err != nil {
		s.refuseBearer(w, r, resource, err)
		return
	}
	w.Header().Set(correlationHeader, t.ID)
	record := audit.Record{ID: t.ID, Event: audit.Count, Workload: t.Workload, Resource: resource, Remote: remote(r)}
	record.Guest(t.Facts)
	denied, err := s.mayHave(r, t, policy.Request{Plugin: counterPlugin, Path: []string{volume}, Query: map[string]string{}, Workload: t.Workload})
	if err != nil {
		s.internal(w, "judging a counter", err)
		return
	}
	if len(denied) > 0 {
		s.denyRelease(w, r, record, fault{http.StatusForbidden, variantPolicy, "counter denied"}, denied...)
		return
	}
	s.count(w, r, t, volume, change, record)
}

// count does it and says what the counter is then. A change that was not done is a denial in the audit log and an
// answer like another to the guest, who compares.
func (s *Server) count(w http.ResponseWriter, r *http.Request, t token.Verified, volume string, change *evidence.CounterChange, record audit.Record) {
	var c evidence.Counter
	var err error
	if change == nil {
		c, err = s.store.Counter(t.Workload, volume)
	} else {
		c, err = s.store.RaiseCounter(t.Workload, volume, *change)
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		s.denyRelease(w, r, record, fault{http.StatusNotFound, variantResource, "no such counter"},
			verifier.Finding{Rule: "counter", Wanted: "a counter of the workload's volume", Found: "none"})
		return
	case errors.Is(err, store.ErrCountersFull):
		s.denyRelease(w, r, record, fault{http.StatusForbidden, variantPolicy, "too many counters"},
			verifier.Finding{Rule: "counters-full", Wanted: "a volume with a counter", Found: "a new one"})
		return
	case err != nil:
		s.internal(w, "counting", err)
		return
	}
	record.Allowed, record.Note = true, fmt.Sprintf("is %d", c.Number)
	switch {
	case change == nil:
	case c.Generation == change.To:
		record.Note = fmt.Sprintf("raised from %d to %d", change.From.Number, c.Number)
	default:
		record.Deny([]verifier.Finding{{Rule: "generation", Wanted: fmt.Sprintf("%d %x", c.Number, c.ID), Found: fmt.Sprintf("%d %x", change.From.Number, change.From.ID)}})
	}
	jwe, err := evidence.SealJWE(t.TEEKey, c.Encode())
	if err == nil {
		err = s.audit.Write(record)
	}
	if err != nil {
		s.internal(w, "answering with a counter", err)
		return
	}
	s.reply(w, http.StatusOK, jwe.Encode())
}

// listCounters answers the owner.
func (s *Server) listCounters(w http.ResponseWriter, r *http.Request) {
	workload := r.PathValue("id")
	if err := owner.CheckID(workload); err != nil {
		s.problem(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	list, err := s.store.Counters(workload)
	if err != nil {
		s.ownerInternal(w, err)
		return
	}
	s.answer(w, http.StatusOK, owner.CounterList{Counters: list})
}

// resetCounter answers the owner.
func (s *Server) resetCounter(w http.ResponseWriter, r *http.Request) {
	workload, volume := r.PathValue("id"), r.PathValue("volume")
	if err := errors.Join(owner.CheckID(workload), owner.CheckVolume(volume)); err != nil {
		s.problem(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	err := s.store.ResetCounter(workload, volume)
	if err == nil {
		err = s.changed(r, workload, counterPlugin+"/"+volume, "counter reset: the next guest says which generation is the last")
	}
	if err != nil {
		s.ownerInternal(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
