// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/audit"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
)

// Codes of owner.Problem.
const (
	codeInvalid      = "invalid"
	codeNotFound     = "not-found"
	codeUnauthorized = "unauthorized"
	codeInternal     = "internal"
)

// ownerHandler serves the owner API to whoever has the owner token.
func (s *Server) ownerHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+ownerPrefix+"workloads", s.listWorkloads)
	mux.HandleFunc("PUT "+ownerPrefix+"workloads/{id}", s.putWorkload)
	mux.HandleFunc("GET "+ownerPrefix+"workloads/{id}", s.getWorkload)
	mux.HandleFunc("DELETE "+ownerPrefix+"workloads/{id}", s.deleteWorkload)
	mux.HandleFunc("GET "+ownerPrefix+"workloads/{id}/secrets", s.listSecrets)
	mux.HandleFunc("PUT "+ownerPrefix+"workloads/{id}/secrets/{repository}/{type}/{tag}", s.putSecret)
	mux.HandleFunc("DELETE "+ownerPrefix+"workloads/{id}/secrets/{repository}/{type}/{tag}", s.deleteSecret)
	mux.HandleFunc("GET "+ownerPrefix+"workloads/{id}/counters", s.listCounters)
	mux.HandleFunc("POST "+ownerPrefix+"workloads/{id}/counters/{volume}/reset", s.resetCounter)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.problem(w, http.StatusNotFound, codeInvalid, "no such path or method in the owner API")
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isOwner(r) {
			mux.ServeHTTP(w, r)
			return
		}
		s.refuseOwner(w, r)
	})
}

// isOwner compares hashes, which takes the same time whatever was sent.
func (s *Server) isOwner(r *http.Request) bool {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	got := sha256.Sum256([]byte(value))
	return subtle.ConstantTimeCompare(got[:], s.ownerHash[:]) == 1 && strings.EqualFold(scheme, "Bearer")
}

func (s *Server) refuseOwner(w http.ResponseWriter, r *http.Request) {
	if !s.limiter.allow(r, s.now()) {
		s.problem(w, http.StatusTooManyRequests, codeUnauthorized, "too many requests from this address")
		return
	}
	record := audit.Record{Event: audit.Owner, Rule: "owner-token", Wanted: "the owner token", Found: "another or none",
		Note: r.Method + " " + r.URL.Path, Remote: remote(r)}
	if err := s.audit.Write(record); err != nil {
		s.ownerInternal(w, err)
		return
	}
	s.problem(w, http.StatusUnauthorized, codeUnauthorized, "the owner token is wrong or missing")
}

func (s *Server) problem(w http.ResponseWriter, status int, code, detail string) {
	s.answer(w, status, owner.Problem{Code: code, Detail: detail})
}

// problemBody answers a body that could not be read.
func (s *Server) problemBody(w http.ResponseWriter, err error) {
	status := http.StatusBadRequest
	if errors.Is(err, errTooLarge) {
		status = http.StatusRequestEntityTooLarge
	}
	s.problem(w, status, codeInvalid, err.Error())
}

// answer is one of the owner package's answers as JSON.
func (s *Server) answer(w http.ResponseWriter, status int, body any) {
	text, err := json.Marshal(body, json.Deterministic(true))
	if err != nil {
		s.log.Error("encoding an answer", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	s.reply(w, status, text)
}

// ownerFailed answers an error of the store.
func (s *Server) ownerFailed(w http.ResponseWriter, err error) {
	if errors.Is(err, store.ErrNotFound) {
		s.problem(w, http.StatusNotFound, codeNotFound, err.Error())
		return
	}
	s.ownerInternal(w, err)
}

func (s *Server) ownerInternal(w http.ResponseWriter, err error) {
	s.log.Error("answering the owner", "error", err)
	s.problem(w, http.StatusInternalServerError, codeInternal, "the keybroker could not do this, see its log")
}

// changed records what the owner did. It is written after the change: a change that is
// not recorded is answered with an error and can be repeated.
func (s *Server) changed(r *http.Request, workload, resource, note string) error {
	return s.audit.Write(audit.Record{Event: audit.Owner, Allowed: true, Workload: workload, Resource: resource, Note: note, Remote: remote(r)})
}

func (s *Server) listWorkloads(w http.ResponseWriter, _ *http.Request) {
	list, err := s.store.Workloads()
	if err != nil {
		s.ownerInternal(w, err)
		return
	}
	s.answer(w, http.StatusOK, owner.WorkloadList{Workloads: list})
}

func (s *Server) putWorkload(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, owner.MaxRegistrationSize)
	if err != nil {
		s.problemBody(w, err)
		return
	}
	registration, err := owner.ParseJSON(body)
	if err == nil && registration.ID != r.PathValue("id") {
		err = fmt.Errorf("registration is of %s, the path names %s", registration.ID, r.PathValue("id"))
	}
	if err == nil {
		_, err = s.policies.Compile(registration.Policy)
	}
	if err != nil {
		s.problem(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	created, err := s.store.PutWorkload(registration)
	if err == nil {
		err = s.admission.load(s.store)
	}
	if err == nil {
		err = s.changed(r, registration.ID, "", registeredNote(registration))
	}
	if err != nil {
		s.ownerInternal(w, err)
		return
	}
	s.answer(w, http.StatusOK, owner.Registered{ID: registration.ID, Created: created})
}

// registeredNote keeps for good what the owner did without proof of.
func registeredNote(r owner.Registration) string {
	note := "registered"
	for _, gap := range r.Gaps() {
		note += fmt.Sprintf("; accepted without proof: %s (%s)", gap.Part, gap.Why)
	}
	return note
}

func (s *Server) getWorkload(w http.ResponseWriter, r *http.Request) {
	registration, err := s.store.Workload(r.PathValue("id"))
	if err != nil {
		s.ownerFailed(w, err)
		return
	}
	s.answer(w, http.StatusOK, registration)
}

func (s *Server) deleteWorkload(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	err := s.store.DeleteWorkload(id)
	if err == nil {
		err = s.admission.load(s.store)
	}
	if err == nil {
		err = s.changed(r, id, "", "removed with its secrets")
	}
	if err != nil {
		s.ownerFailed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
