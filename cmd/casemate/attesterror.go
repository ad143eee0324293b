// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"

	"github.com/casemate/casemate/agent"
	"github.com/casemate/casemate/agent/kbs"
)

// attestError says why this guest has no token, in a code and a phrase that the host
// may read: which rule it broke is for the relying party's own log.
type attestError struct {
	reason agent.Reason
	err    error
}

func (e *attestError) Error() string { return e.err.Error() }
func (e *attestError) Unwrap() error { return e.err }

// notAttested names the state of a guest whose handshake failed, and tells of it.
func (m *machine) notAttested(err error) error {
	e := &attestError{attestReason(err), err}
	m.log.Error(e.reason.String(), "error", err)
	return e
}

func attestReason(err error) agent.Reason {
	switch {
	case errors.Is(err, kbs.ErrDenied):
		return agent.Reason{Code: "attest-denied", Phrase: "the relying party refused this guest"}
	case errors.Is(err, kbs.ErrUnavailable):
		return agent.Reason{Code: "attest-unreachable", Phrase: "the relying party does not answer"}
	case errors.Is(err, kbs.ErrProtocol):
		return agent.Reason{Code: "attest-untrusted", Phrase: "what answers is not the pinned relying party, or not by this guest's clock"}
	}
	return agent.Reason{Code: "attest-failed", Phrase: "the guest has no evidence to show"}
}
