// SPDX-License-Identifier: Apache-2.0

package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
)

// correlationHeader tells the guest under which id the audit log has its handshake.
const correlationHeader = "Casemate-Correlation"

// Variants of the protocol's error type, as Trustee names them where it has them.
const (
	variantAttestation  = "AttestationError"
	variantToken        = "TokenNotFound"
	variantTokenInvalid = "TokenVerifierError"
	variantPolicy       = "PolicyDeny"
	variantResource     = "ResourceNotFound"
	variantPath         = "InvalidRequestPath"
	variantPlugin       = "PluginNotFound"
	variantRequest      = "InvalidRequest"
	variantOverload     = "TooManyRequests"
	variantInternal     = "InternalError"
)

// fault is an answer to a guest that is not what it asked for. Its texts are ours: they
// name rules and ids and repeat nothing that was wanted or found.
type fault struct {
	status  int
	variant string
	detail  string
}

func (s *Server) fail(w http.ResponseWriter, f fault) {
	body, err := evidence.ErrorInformation{Variant: f.variant, Detail: f.detail}.Encode()
	if err != nil { // the texts are constants and ids
		s.log.Error("encoding an answer", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if f.status == http.StatusTooManyRequests || f.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	s.reply(w, f.status, body)
}

// reply sends a JSON body that nobody may keep.
func (s *Server) reply(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		s.log.Debug("sending an answer", "error", err)
	}
}

// internal answers that this keybroker is at fault and logs why.
func (s *Server) internal(w http.ResponseWriter, doing string, err error) {
	s.log.Error(doing, "error", err)
	s.fail(w, fault{http.StatusInternalServerError, variantInternal, "the keybroker could not do this, see its log"})
}

// errTooLarge says that a body is over its cap.
var errTooLarge = errors.New("body is too large")

// readBody reads a body of at most limit bytes.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		return nil, errTooLarge
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	if errors.As(err, &over) {
		return nil, errTooLarge
	}
	if err != nil {
		return nil, fmt.Errorf("reading body: %w", err)
	}
	return body, nil
}

// failBody answers a body that could not be read.
func (s *Server) failBody(w http.ResponseWriter, err error, limit int64) {
	if errors.Is(err, errTooLarge) {
		s.fail(w, fault{http.StatusRequestEntityTooLarge, variantRequest, fmt.Sprintf("body is over %d bytes", limit)})
		return
	}
	s.fail(w, fault{http.StatusBadRequest, variantRequest, "body could not be read"})
}
