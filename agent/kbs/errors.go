// SPDX-License-Identifier: Apache-2.0

package kbs

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/casemate/casemate/agent/evidence"
)

// Every error of Token and Key wraps one of these, the caller's context error, or says
// that the guest itself could not produce what the protocol wants.
var (
	// ErrDenied says that the broker refused; asking again changes nothing by itself.
	ErrDenied = errors.New("denied by the KBS")
	// ErrNotFound says that the broker has no such resource.
	ErrNotFound = errors.New("not found at the KBS")
	// ErrUnavailable says that no answer came, after all attempts.
	ErrUnavailable = errors.New("KBS unavailable")
	// ErrProtocol says that the broker answered outside the protocol.
	ErrProtocol = errors.New("KBS protocol violated")
)

// StatusError is an answer other than 200. It wraps ErrDenied, ErrNotFound,
// ErrUnavailable or ErrProtocol according to the status.
type StatusError struct {
	Status int
	// Info is what the broker said, short and free of control characters; zero when
	// it did not say it in the protocol's form.
	Info evidence.ErrorInformation
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%v: status %d", e.Unwrap(), e.Status)
	if e.Status >= 300 && e.Status < 400 {
		text += ", redirects are refused"
	}
	if e.Info.Variant != "" || e.Info.Detail != "" {
		text += fmt.Sprintf(", %s: %s", e.Info.Variant, e.Info.Detail)
	}
	return text
}

// Unwrap returns the sentinel for the status.
func (e *StatusError) Unwrap() error {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusNotFound:
		return ErrNotFound
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		// Proxies and rate limits speak here, not the broker's judgement.
		return ErrUnavailable
	}
	return ErrProtocol
}

// violation is an ErrProtocol with its reason.
func violation(err error) error {
	return fmt.Errorf("%w: %w", ErrProtocol, err)
}

// retryable reports whether another attempt may end differently.
func retryable(err error) bool { return errors.Is(err, ErrUnavailable) }
