// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"fmt"

	"github.com/go-json-experiment/json"
)

// ParseJSON reads a registration as it travels. Unknown, repeated or differently
// cased members are errors. The result is valid.
func ParseJSON(body []byte) (Registration, error) {
	r, err := ParseStored(body)
	if err == nil {
		err = r.named(r.validateProof)
	}
	if err != nil {
		return Registration{}, err
	}
	return r, nil
}

// ParseStored is ParseJSON for a registration that was taken before and is kept: gaps in
// what it proves (Gaps) are not refused again, or a keybroker that refuses more than an
// earlier one could not open its state.
func ParseStored(body []byte) (Registration, error) {
	if len(body) > MaxRegistrationSize {
		return Registration{}, fmt.Errorf("registration is %d bytes, at most %d allowed", len(body), MaxRegistrationSize)
	}
	var r Registration
	if err := json.Unmarshal(body, &r, json.RejectUnknownMembers(true)); err != nil {
		return Registration{}, fmt.Errorf("parsing registration: %w", err)
	}
	if err := r.validateForm(); err != nil {
		return Registration{}, err
	}
	return r, nil
}

// JSON returns the form that travels, with the same bytes for the same registration.
func (r Registration) JSON() ([]byte, error) {
	body, err := json.Marshal(r, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding registration of %s: %w", r.ID, err)
	}
	return body, nil
}
