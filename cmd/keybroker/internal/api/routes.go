// SPDX-License-Identifier: Apache-2.0

package api

import (
	"fmt"
	"net/http"
	"path"
	"runtime/debug"
	"strings"
)

const (
	guestPrefix = "/kbs/v0/"
	ownerPrefix = "/owner/v1/"
)

// Handler returns the handler of all paths.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+guestPrefix+"auth", s.auth)
	mux.HandleFunc("POST "+guestPrefix+"attest", s.attest)
	mux.HandleFunc("POST "+guestPrefix+"report", s.report)
	mux.HandleFunc("POST "+guestPrefix+"incidents", s.incidents)
	mux.HandleFunc("GET "+guestPrefix+"resource/{repository}/{type}/{tag}", s.resource)
	mux.HandleFunc("GET "+guestPrefix+"counter/{volume}", s.counter)
	mux.HandleFunc("POST "+guestPrefix+"counter/{volume}", s.counter)
	mux.Handle(ownerPrefix, s.ownerHandler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		s.fail(w, fault{http.StatusNotFound, variantPlugin, "no such path or method"})
	})
	return s.guard(mux)
}

// guard is in front of every path. A panic answers one request and nothing else.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("handling a request", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
				s.fail(w, fault{http.StatusInternalServerError, variantInternal, "the keybroker could not do this, see its log"})
			}
		}()
		// The mux would redirect a path to its clean form or match its decoded one; no
		// path here has an escape, an empty segment or a dot segment. A HEAD request
		// would run the handler of GET.
		p := r.URL.EscapedPath()
		if strings.ContainsAny(p, `%\`) || path.Clean("/"+p) != p || r.Method == http.MethodHead {
			s.fail(w, fault{http.StatusNotFound, variantPath, "not a path that is served"})
			return
		}
		next.ServeHTTP(w, r)
	})
}
