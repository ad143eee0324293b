// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
)

func certificatePEM(s *httptest.Server) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

// readOnly refuses to store anything.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			http.Error(w, "read-only", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// fakeKeybroker keeps secrets of the workload "app", which is registered, and
// of others, which are not, as files named by their path with dots.
type fakeKeybroker struct {
	dir, token string
	deny       bool
}

func (k *fakeKeybroker) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+k.token {
		problem(w, http.StatusUnauthorized, "unauthorized", "wrong owner token")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/owner/v1/workloads/")
	workload, path, _ := strings.Cut(rest, "/secrets")
	if !ok {
		problem(w, http.StatusNotFound, "not-found", "no such call")
		return
	}
	path = strings.TrimPrefix(path, "/")
	file := filepath.Join(k.dir, strings.ReplaceAll(path, "/", "."))
	switch {
	case r.Method == http.MethodGet && path == "":
		k.list(w)
	case r.Method == http.MethodPut && k.deny:
		problem(w, http.StatusInternalServerError, "internal", "the store is full")
	case r.Method == http.MethodPut:
		value, err := io.ReadAll(r.Body)
		if err == nil {
			err = os.WriteFile(file, value, 0o600)
		}
		if err != nil {
			problem(w, http.StatusInternalServerError, "internal", err.Error())
			return
		}
		fmt.Fprintf(w, `{"path":%q,"size":%d,"registered":%v}`, path, len(value), workload == "app")
	case r.Method == http.MethodDelete:
		if os.Remove(file) != nil {
			problem(w, http.StatusNotFound, "not-found", "no such secret")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		problem(w, http.StatusMethodNotAllowed, "invalid", "no such call")
	}
}

func (k *fakeKeybroker) list(w http.ResponseWriter) {
	files, err := os.ReadDir(k.dir)
	if err != nil {
		problem(w, http.StatusInternalServerError, "internal", err.Error())
		return
	}
	var secrets []string
	for _, f := range files {
		secrets = append(secrets, fmt.Sprintf(`{"path":%q,"size":32}`, strings.ReplaceAll(f.Name(), ".", "/")))
	}
	fmt.Fprintf(w, `{"secrets":[%s]}`, strings.Join(secrets, ","))
}

func problem(w http.ResponseWriter, status int, code, detail string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"code":%q,"detail":%q}`, code, detail)
}
