// SPDX-License-Identifier: Apache-2.0

package owner

import (
	"errors"
	"fmt"
	"strings"

	"github.com/BurntSushi/toml"
)

// MaxRegistrationSize holds full lists and a policy of MaxPolicySize.
const MaxRegistrationSize = 1 << 20

// ParseTOML reads the registration file that an owner writes. Unknown keys, keys in
// another case and repeated keys are errors with their line. The result is valid.
func ParseTOML(text []byte) (Registration, error) {
	return ParseTOMLWith(text, Also{})
}

// Also is what an owner says beside the registration file.
type Also struct {
	// Policy is a policy in a file of its own. One in both places is an error.
	Policy string
	// AcceptUnproved is added to the registration's own.
	AcceptUnproved []Part
	// Complete adds reference values; nil adds none.
	Complete func(*Registration) error
}

// ParseTOMLWith is ParseTOML with what was said beside the file.
func ParseTOMLWith(text []byte, also Also) (Registration, error) {
	r, err := decodeTOML(text)
	if err != nil {
		return Registration{}, err
	}
	if also.Complete != nil {
		if err := also.Complete(&r); err != nil {
			return Registration{}, err
		}
	}
	if also.Policy != "" && r.Policy != "" {
		return Registration{}, errors.New("registration has a policy, and another was given")
	}
	if also.Policy != "" {
		r.Policy = also.Policy
	}
	r.AcceptUnproved = append(r.AcceptUnproved, also.AcceptUnproved...)
	if err := r.Validate(); err != nil {
		return Registration{}, err
	}
	return r, nil
}

func decodeTOML(text []byte) (Registration, error) {
	if len(text) > MaxRegistrationSize {
		return Registration{}, fmt.Errorf("registration is %d bytes, at most %d allowed", len(text), MaxRegistrationSize)
	}
	var r Registration
	meta, err := toml.Decode(string(text), &r)
	if err != nil {
		var syntax toml.ParseError
		if errors.As(err, &syntax) {
			return Registration{}, fmt.Errorf("registration line %d: %s", syntax.Position.Line, syntax.Message)
		}
		return Registration{}, fmt.Errorf("registration: %w", err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return Registration{}, unknownKey(text, unknown[0])
	}
	// The decoder matches names without regard to case; every name here is lower-case.
	for _, key := range meta.Keys() {
		if key.String() != strings.ToLower(key.String()) {
			return Registration{}, unknownKey(text, key)
		}
	}
	return r, nil
}

// unknownKey finds the line for the reader; the decoder no longer knows it.
func unknownKey(text []byte, key toml.Key) error {
	last := key[len(key)-1]
	for i, line := range strings.Split(string(text), "\n") {
		name, _, ok := strings.Cut(line, "=")
		if !ok {
			name = strings.Trim(strings.TrimSpace(line), "[]")
		}
		name = strings.Trim(strings.TrimSpace(name), `"'`)
		if name == last || strings.HasSuffix(name, "."+last) {
			return fmt.Errorf("registration line %d: unknown key %q", i+1, key.String())
		}
	}
	return fmt.Errorf("registration: unknown key %q", key.String())
}
