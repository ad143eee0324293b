// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/cmd/internal/owner"
	"github.com/casemate/casemate/cmd/keybroker/internal/store"
)

// secretName returns the workload and path of r, checked.
func secretName(r *http.Request) (workload, path string, err error) {
	workload = r.PathValue("id")
	path = r.PathValue("repository") + "/" + r.PathValue("type") + "/" + r.PathValue("tag")
	return workload, path, errors.Join(owner.CheckID(workload), owner.CheckPath(path))
}

func (s *Server) putSecret(w http.ResponseWriter, r *http.Request) {
	workload, path, err := secretName(r)
	if err != nil {
		s.problem(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	value, err := readBody(w, r, owner.MaxSecretSize)
	if err != nil {
		s.problemBody(w, err)
		return
	}
	defer clear(value)
	if len(value) == 0 {
		s.problem(w, http.StatusBadRequest, codeInvalid, fmt.Sprintf("secret %s is empty", path))
		return
	}
	once, put := false, s.store.PutSecret
	switch query := r.URL.RawQuery; query {
	case "":
	case owner.OnceQuery:
		once, put = true, s.store.PutSecretOnce
	default:
		s.problem(w, http.StatusBadRequest, codeInvalid, fmt.Sprintf("query, want none or %s", owner.OnceQuery))
		return
	}
	_, err = put(workload, path, value)
	if err == nil {
		err = s.changed(r, workload, path, "secret stored")
	}
	if err != nil {
		s.ownerInternal(w, err)
		return
	}
	_, err = s.store.Workload(workload)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		s.ownerInternal(w, err)
		return
	}
	s.answer(w, http.StatusOK, owner.Stored{Secret: owner.Secret{Path: path, Size: len(value), Once: once}, Registered: err == nil})
}

func (s *Server) deleteSecret(w http.ResponseWriter, r *http.Request) {
	workload, path, err := secretName(r)
	if err != nil {
		s.problem(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	err = s.store.DeleteSecret(workload, path)
	if err == nil {
		err = s.changed(r, workload, path, "secret removed")
	}
	if err != nil {
		s.ownerFailed(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) listSecrets(w http.ResponseWriter, r *http.Request) {
	workload := r.PathValue("id")
	if err := owner.CheckID(workload); err != nil {
		s.problem(w, http.StatusBadRequest, codeInvalid, err.Error())
		return
	}
	list, err := s.store.Secrets(workload)
	if err != nil {
		s.ownerInternal(w, err)
		return
	}
	s.answer(w, http.StatusOK, owner.SecretList{Secrets: list})
}
